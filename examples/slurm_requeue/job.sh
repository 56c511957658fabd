#!/bin/bash
#SBATCH --job-name=digits
#SBATCH --time=00:10:00
#SBATCH --ntasks=1
#SBATCH --signal=SIGUSR1@90
#SBATCH --requeue
#SBATCH --open-mode=append
# SIGUSR1 comes 90 seconds before the time is up; SIGKILL when it is.
srun python train.py "$@"
