"""Digests are kept, journals move to objects, copies that were continued are branches, runs can be deleted"""

import sqlalchemy as sa
import zstandard
from alembic import op

from flightlog.journal.record import check
from flightlog.protocol.digest import JournalDigest
from flightlog_server.store.journals import rows_of, split

revision = "0003"
down_revision = "0002"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("runs") as batch_op:
        batch_op.add_column(sa.Column("deleted_at", sa.Float(precision=53), nullable=True))
    with op.batch_alter_table("writers") as batch_op:
        batch_op.add_column(sa.Column("digest", sa.String(length=64), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("base_id", _ID, nullable=True))
        batch_op.add_column(sa.Column("base_seq", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
        batch_op.add_column(sa.Column("loose", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
        batch_op.create_foreign_key(batch_op.f("fk_writers_base_id_writers"), "writers", ["base_id"], ["id"])
        batch_op.create_index(batch_op.f("ix_writers_base_id"), ["base_id"], unique=False)
    with op.batch_alter_table("batches") as batch_op:
        batch_op.alter_column("lines", existing_type=sa.LargeBinary(), nullable=True)
        batch_op.add_column(sa.Column("size", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
        batch_op.add_column(sa.Column("object", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("offset", sa.BigInteger(), nullable=True))
        batch_op.create_index(batch_op.f("ix_batches_object"), ["object"], unique=False)
    _cut_anew(op.get_bind())
    with op.batch_alter_table("writers") as batch_op:
        batch_op.alter_column("digest", existing_type=sa.String(length=64), server_default=None)
    with op.batch_alter_table("batches") as batch_op:
        batch_op.alter_column("size", existing_type=sa.BigInteger(), server_default=None)


def _cut_anew(connection: sa.Connection) -> None:
    """Cut what is stored at the borders of digest blocks, and note each writer's digest."""
    meta = sa.MetaData()
    writers = sa.Table("writers", meta, autoload_with=connection)
    batches = sa.Table("batches", meta, autoload_with=connection)
    for writer_id, last_seq in connection.execute(sa.select(writers.c.id, writers.c.last_seq)).all():
        digest, loose = JournalDigest(), 0
        firsts = sa.select(batches.c.first_seq).where(batches.c.writer_id == writer_id).order_by(batches.c.first_seq)
        for (first_seq,) in connection.execute(firsts).all():
            key = (batches.c.writer_id == writer_id, batches.c.first_seq == first_seq)
            blob = connection.execute(sa.select(batches.c.lines).where(*key)).scalar_one()
            raws = split(zstandard.ZstdDecompressor().decompress(blob))
            connection.execute(batches.delete().where(*key))
            for first, last, content in rows_of([line for raw in raws if (line := check(raw)) is not None]):
                digest.add(first, content)
                packed = zstandard.ZstdCompressor(level=3).compress(content)
                loose += len(packed)
                row = {"writer_id": writer_id, "first_seq": first, "last_seq": last, "lines": packed}
                connection.execute(batches.insert().values(**row, size=len(packed)))
        facts = {"digest": digest.upto(last_seq), "loose": loose}
        connection.execute(writers.update().where(writers.c.id == writer_id).values(facts))
