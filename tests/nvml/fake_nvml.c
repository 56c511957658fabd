/* A stand-in for NVIDIA's management library, for the tests of core/flightlog/system: built as libnvidia-ml.so.1 and
 * found by the loader, it plays the devices, failures and delays that a text file describes. The structures and numbers
 * are those of nvml.h (https://docs.nvidia.com/deploy/nvml-api/) as nvidia-ml-py calls them.
 *
 * The file is named by FAKE_NVML and read again when it changes. Its lines:
 *
 *   gpu <i> <name> <value>               a property of a GPU: a number, or for uuid a text; the first makes the GPU
 *   mig <i> <j> <name> <value>           likewise of a slice of it
 *   process <i> <pid> <bytes> <percent>  something that computes on a GPU
 *   return <function> <code> [<i>]       a function that fails, on one GPU or on all
 *   delay <function> <ms>                a function that takes its time; -1: it never returns
 *   xid <i> <number>                     an error, reported once for each line of the file
 *
 * Properties whose names end in _rate are counters that grow by so much per second. A GPU without a property does not
 * support what would read it. Built with -DOLD_DRIVER the library lacks what drivers before release 450 lack.
 */

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       TIMEOUT = 10 };

#define MAX_GPUS 128
#define MAX_MIGS 8
#define MAX_PROPERTIES 64
#define MAX_LINES 256

typedef struct {
    char name[40];
    char text[100];
    double value;
} Property;

typedef struct Device {
    int gpu, mig, count;
    Property properties[MAX_PROPERTIES];
} Device;

typedef struct {
    int gpu;
    unsigned pid;
    unsigned long long bytes;
    unsigned percent;
} Process;

typedef struct {
    char function[64];
    int gpu, code, delay;
} Fault;

static Device gpus[MAX_GPUS], migs[MAX_GPUS][MAX_MIGS];
static Process processes[MAX_LINES];
static Fault faults[MAX_LINES];
static int xids[MAX_LINES][2];
static int gpu_count, process_count, fault_count, xid_count, xids_told, initialized;
static struct timespec read_at, looked_at;

static void put(Device *device, const char *name, const char *text) {
    if (device->count < MAX_PROPERTIES) {
        Property *property = &device->properties[device->count++];
        snprintf(property->name, sizeof property->name, "%s", name);
        snprintf(property->text, sizeof property->text, "%s", text);
        property->value = atof(text);
    }
}

static void read_line(const char *line) {
    char name[64], text[100];
    int i, j, code;
    Process process;
    Fault fault = {.gpu = -1};
    if (sscanf(line, "gpu %d %39s %99s", &i, name, text) == 3 && i < MAX_GPUS) {
        put(&gpus[i], name, text);
        gpu_count = i >= gpu_count ? i + 1 : gpu_count;
    } else if (sscanf(line, "mig %d %d %39s %99s", &i, &j, name, text) == 4 && i < MAX_GPUS && j < MAX_MIGS) {
        put(&migs[i][j], name, text);
    } else if (sscanf(line, "process %d %u %llu %u", &process.gpu, &process.pid, &process.bytes, &process.percent) == 4) {
        processes[process_count++ % MAX_LINES] = process;
    } else if (sscanf(line, "return %63s %d %d", fault.function, &fault.code, &fault.gpu) >= 2) {
        faults[fault_count++ % MAX_LINES] = fault;
    } else if (sscanf(line, "delay %63s %d", fault.function, &fault.delay) == 2) {
        faults[fault_count++ % MAX_LINES] = fault;
    } else if (sscanf(line, "xid %d %d", &i, &code) == 2) {
        xids[xid_count % MAX_LINES][0] = i;
        xids[xid_count++ % MAX_LINES][1] = code;
    }
}

static void read_file(void) {
    const char *path = getenv("FAKE_NVML");
    struct stat state;
    char line[256];
    FILE *file;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec == looked_at.tv_sec && now.tv_nsec - looked_at.tv_nsec < 5000000) /* it is measured, too */
        return;
    looked_at = now;
    if (!path || stat(path, &state) || !memcmp(&state.st_mtim, &read_at, sizeof read_at) || !(file = fopen(path, "r")))
        return;
    read_at = state.st_mtim;
    memset(gpus, 0, sizeof gpus);
    memset(migs, 0, sizeof migs);
    gpu_count = process_count = fault_count = xid_count = 0;
    while (fgets(line, sizeof line, file))
        read_line(line);
    fclose(file);
    for (int i = 0; i < MAX_GPUS; i++) {
        gpus[i].gpu = i;
        gpus[i].mig = -1;
        for (int j = 0; j < MAX_MIGS; j++) {
            migs[i][j].gpu = i;
            migs[i][j].mig = j;
        }
    }
}

/* What every function does first: take its time, and fail if it is told to. */
static int begin(const char *function, const Device *device) {
    read_file();
    for (int i = 0; i < fault_count; i++) {
        if (strcmp(faults[i].function, function) || (faults[i].gpu >= 0 && (!device || device->gpu != faults[i].gpu)))
            continue;
        while (faults[i].delay < 0)
            pause();
        usleep(faults[i].delay * 1000);
        if (faults[i].code)
            return faults[i].code;
    }
    return initialized || !strcmp(function, "nvmlInitWithFlags") ? SUCCESS : UNINITIALIZED;
}

#define BEGIN(device)                          \
    do {                                       \
        int code = begin(__func__, device);    \
        if (code)                              \
            return code;                       \
    } while (0)

static const Property *find(const Device *device, const char *name) {
    for (int i = 0; i < device->count; i++)
        if (!strcmp(device->properties[i].name, name))
            return &device->properties[i];
    return NULL;
}

static int give(const Device *device, const char *name, unsigned *value) {
    const Property *property = find(device, name);
    if (property)
        *value = (unsigned)property->value;
    return property ? SUCCESS : NOT_SUPPORTED;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    BEGIN(NULL);
    initialized++;
    return SUCCESS;
}

int nvmlShutdown(void) {
    BEGIN(NULL);
    initialized--;
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    return code == 15 ? "GPU is lost" : code == 9 ? "Driver Not Loaded" : code == 18 ? "Driver/library version mismatch"
                                                                                      : "Some error";
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    BEGIN(NULL);
    snprintf(version, length, "999.12.34");
    return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion(int *version) {
    BEGIN(NULL);
    *version = 12080;
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    BEGIN(NULL);
    *count = (unsigned)gpu_count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) {
    if (index >= MAX_GPUS)
        return INVALID_ARGUMENT;
    BEGIN(&gpus[index]);
    *device = &gpus[index];
    return SUCCESS;
}

int nvmlDeviceGetName(Device *device, char *name, unsigned length) {
    BEGIN(device);
    snprintf(name, length, "NVIDIA Fake");
    return SUCCESS;
}

int nvmlDeviceGetUUID(Device *device, char *uuid, unsigned length) {
    const Property *property;
    BEGIN(device);
    if (!(property = find(device, "uuid")))
        return NOT_SUPPORTED;
    snprintf(uuid, length, "%s", property->text);
    return SUCCESS;
}

typedef struct {
    unsigned gpu, memory;
} Utilization;

int nvmlDeviceGetUtilizationRates(Device *device, Utilization *rates) {
    BEGIN(device);
    give(device, "memory_utilization", &rates->memory);
    return give(device, "utilization", &rates->gpu);
}

typedef struct {
    unsigned long long total, free, used;
} Memory;

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    const Property *total, *used, *reserved;
    BEGIN(device);
    if (!(total = find(device, "memory_total")) || !(used = find(device, "memory_used")))
        return NOT_SUPPORTED;
    reserved = find(device, "memory_reserved");
    memory->total = (unsigned long long)total->value;
    memory->used = (unsigned long long)(used->value + (reserved ? reserved->value : 0));
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned *celsius) {
    BEGIN(device);
    return sensor ? INVALID_ARGUMENT : give(device, "temperature", celsius);
}

int nvmlDeviceGetPowerUsage(Device *device, unsigned *milliwatts) {
    BEGIN(device);
    return give(device, "power", milliwatts);
}

int nvmlDeviceGetEnforcedPowerLimit(Device *device, unsigned *milliwatts) {
    BEGIN(device);
    return give(device, "power_limit", milliwatts);
}

int nvmlDeviceGetClockInfo(Device *device, int domain, unsigned *megahertz) {
    static const char *const names[] = {"clock_graphics", "clock_sm", "clock_memory"};
    BEGIN(device);
    return domain < 0 || domain > 2 ? INVALID_ARGUMENT : give(device, names[domain], megahertz);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, unsigned long long *reasons) {
    const Property *property;
    BEGIN(device);
    if ((property = find(device, "throttle")))
        *reasons = (unsigned long long)property->value;
    return property ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetPcieThroughput(Device *device, int counter, unsigned *kilobytes) {
    BEGIN(device);
    return give(device, counter ? "pcie_rx" : "pcie_tx", kilobytes);
}

typedef struct {
    unsigned pid;
    unsigned long long used;
    unsigned gi, ci;
} ProcessInfo;

static int running(Device *device, unsigned *count, ProcessInfo *infos) {
    unsigned found = 0;
    for (int i = 0; i < process_count; i++) {
        if (processes[i].gpu != device->gpu)
            continue;
        if (infos && found < *count)
            infos[found] = (ProcessInfo){processes[i].pid, processes[i].bytes, UINT_MAX, UINT_MAX};
        found++;
    }
    if (found > *count || (found && !infos)) {
        *count = found;
        return INSUFFICIENT_SIZE;
    }
    *count = found;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v2(Device *device, unsigned *count, ProcessInfo *infos) {
    BEGIN(device);
    return running(device, count, infos);
}

#ifndef OLD_DRIVER

typedef struct {
    unsigned version;
    unsigned long long total, reserved, free, used;
} Memory2;

int nvmlDeviceGetMemoryInfo_v2(Device *device, Memory2 *memory) {
    const Property *total, *used, *reserved;
    BEGIN(device);
    if (memory->version != 0x02000028)
        return INVALID_ARGUMENT;
    if (!(total = find(device, "memory_total")) || !(used = find(device, "memory_used")))
        return NOT_SUPPORTED;
    reserved = find(device, "memory_reserved");
    memory->total = (unsigned long long)total->value;
    memory->used = (unsigned long long)used->value;
    memory->reserved = reserved ? (unsigned long long)reserved->value : 0;
    memory->free = memory->total - memory->used - memory->reserved;
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksEventReasons(Device *device, unsigned long long *reasons) {
    BEGIN(device);
    return nvmlDeviceGetCurrentClocksThrottleReasons(device, reasons);
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned *count, ProcessInfo *infos) {
    BEGIN(device);
    return running(device, count, infos);
}

typedef struct {
    unsigned pid;
    unsigned long long timestamp;
    unsigned sm, memory, encoder, decoder;
} UtilizationSample;

int nvmlDeviceGetProcessUtilization(Device *device, UtilizationSample *samples, unsigned *count,
                                    unsigned long long since) {
    unsigned found = 0;
    BEGIN(device);
    for (int i = 0; i < process_count; i++) {
        if (processes[i].gpu != device->gpu)
            continue;
        if (samples && found < *count)
            samples[found] = (UtilizationSample){processes[i].pid, since + 1, processes[i].percent, 0, 0, 0};
        found++;
    }
    if (!found)
        return NOT_FOUND;
    if (found > *count || !samples) {
        *count = found;
        return INSUFFICIENT_SIZE;
    }
    *count = found;
    return SUCCESS;
}

typedef struct {
    unsigned field, scope;
    long long timestamp, latency;
    int type, code;
    union {
        double d;
        unsigned u;
        unsigned long long ull;
    } value;
} FieldValue;

static unsigned long long grown(double per_second) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long long)(per_second * ((double)now.tv_sec + (double)now.tv_nsec / 1e9));
}

static void answer(Device *device, FieldValue *field) {
    static const struct {
        unsigned field, scope;
        const char *name;
    } known[] = {{3, 0, "ecc_corrected"},       {4, 0, "ecc_uncorrected"},   {82, 0, "memory_temperature"},
                 {138, UINT_MAX, "nvlink_tx_rate"}, {139, UINT_MAX, "nvlink_rx_rate"}, {197, 0, "pcie_tx_rate"},
                 {198, 0, "pcie_rx_rate"}};
    field->code = NOT_SUPPORTED;
    for (unsigned i = 0; i < sizeof known / sizeof *known; i++) {
        const Property *property = find(device, known[i].name);
        if (known[i].field != field->field || known[i].scope != field->scope || !property)
            continue;
        field->code = SUCCESS;
        field->type = strstr(known[i].name, "_rate") ? 3 : 1;
        if (field->type == 3)
            field->value.ull = grown(property->value);
        else
            field->value.u = (unsigned)property->value;
    }
}

int nvmlDeviceGetFieldValues(Device *device, int count, FieldValue *fields) {
    BEGIN(device);
    for (int i = 0; i < count; i++)
        answer(device, &fields[i]);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending) {
    BEGIN(device);
    *pending = 0;
    return give(device, "mig", current);
}

int nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned *count) {
    BEGIN(device);
    *count = MAX_MIGS;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned index, Device **mig) {
    BEGIN(device);
    if (index >= MAX_MIGS || !migs[device->gpu][index].count)
        return NOT_FOUND;
    *mig = &migs[device->gpu][index];
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(Device *device, unsigned *id) {
    BEGIN(device);
    return give(device, "gi", id);
}

int nvmlDeviceGetComputeInstanceId(Device *device, unsigned *id) {
    BEGIN(device);
    return give(device, "ci", id);
}

#endif

typedef struct {
    Device *device;
    unsigned long long type, data;
    unsigned gi, ci;
} Event;

int nvmlEventSetCreate(void **set) {
    BEGIN(NULL);
    *set = &xids_told;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(Device *device, unsigned long long types, void *set) {
    BEGIN(device);
    return types == 8 && set == &xids_told ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlEventSetWait_v2(void *set, Event *event, unsigned milliseconds) {
    (void)milliseconds;
    BEGIN(NULL);
    if (set != &xids_told)
        return INVALID_ARGUMENT;
    if (xids_told >= xid_count)
        return TIMEOUT;
    *event = (Event){&gpus[xids[xids_told][0]], 8, (unsigned long long)xids[xids_told][1], UINT_MAX, UINT_MAX};
    xids_told++;
    return SUCCESS;
}

int nvmlEventSetFree(void *set) {
    BEGIN(NULL);
    return set == &xids_told ? SUCCESS : INVALID_ARGUMENT;
}
