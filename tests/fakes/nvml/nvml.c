/* A libnvidia-ml.so.1 without a GPU, for tests. Its values are read from the file $FAKE_NVML_STATE at every call, so a test
 * can change the state of a card while another process looks at it. A line is `key value` or `INDEX.key value` (the
 * latter goes first); what is not there has the default given below. Keys without a card: count, driver, cuda, init_error.
 *   error N          every call about the card answers N (15: lost, 16: reset required)
 *   unsupported A,B  these functions answer 3 (not supported)
 *   delay_ms N       every call about the card takes N ms
 *   processes P:M,…  process ids, and the MiB that each uses (-: not known)
 *   remapped C,U,P,F rows remapped for errors that could be corrected or not, whether some wait, whether some could not be
 *   retired S,D,P    pages retired, by kind of error, and whether some wait; a card has either these or remapped rows
 *   events N         the kinds of events that the card tells of (8: XIDs)
 *   xids X,Y,…       what the driver reports; each is given once, as soon as it stands there: a list only grows
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, TOO_SMALL = 7, TIMEOUT = 10 };
typedef unsigned int u32;
typedef unsigned long long u64;
static int started;

static const char *text(int card, const char *key, const char *otherwise) {
    static __thread char found[4][1024];
    static __thread int turn;
    char line[1024], own[96];
    char *value = found[turn = (turn + 1) % 4];
    const char *path = getenv("FAKE_NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    int rank = 0;
    if (!file) return otherwise;
    snprintf(own, sizeof own, "%d.%s", card, key);
    while (fgets(line, sizeof line, file)) {
        char *space = strchr(line, ' ');
        if (!space) continue;
        *space = 0;
        space[strcspn(space + 1, "\n") + 1] = 0;
        int match = !strcmp(line, own) ? 2 : !strcmp(line, key) ? 1 : 0;
        if (match > rank) { rank = match; snprintf(value, 1024, "%s", space + 1); }
    }
    fclose(file);
    return rank ? value : otherwise;
}

static u64 number(int card, const char *key, u64 otherwise) {
    const char *value = text(card, key, NULL);
    return value ? strtoull(value, NULL, 0) : otherwise;
}

/* A handle is the card's index + 1. */
static int card_of(void *handle) { return (int)(size_t)handle - 1; }

static int ask(void *handle, const char *function) {
    char wanted[128], listed[1100];
    int card = card_of(handle), error;
    if (!started) return UNINITIALIZED;
    usleep((useconds_t)number(card, "delay_ms", 0) * 1000);
    if ((error = (int)number(card, "error", 0))) return error;
    snprintf(wanted, sizeof wanted, ",%s,", function);
    snprintf(listed, sizeof listed, ",%s,", text(card, "unsupported", ""));
    return strstr(listed, wanted) ? NOT_SUPPORTED : OK;
}

static int copy(char *to, u32 size, const char *value) {
    if (strlen(value) >= size) return TOO_SMALL;
    strcpy(to, value);
    return OK;
}

#define NUMBER(function, type, key, otherwise) \
    int function(void *handle, type *value) { \
        int error = ask(handle, #function); \
        if (!error) *value = (type)number(card_of(handle), key, otherwise); \
        return error; \
    }

int nvmlInitWithFlags(u32 flags) {
    int error = (int)number(-1, "init_error", 0);
    (void)flags;
    if (!error) started++;
    return error;
}
int nvmlShutdown(void) {
    if (!started) return UNINITIALIZED;
    started--;
    return OK;
}
const char *nvmlErrorString(int error) { return error == 15 ? "GPU is lost" : "fake error"; }

int nvmlSystemGetDriverVersion(char *version, u32 size) { return copy(version, size, text(-1, "driver", "580.159.03")); }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = (int)number(-1, "cuda", 13000); return OK; }
int nvmlDeviceGetCount_v2(u32 *count) {
    if (!started) return UNINITIALIZED;
    *count = (u32)number(-1, "count", 1);
    return OK;
}
int nvmlDeviceGetHandleByIndex_v2(u32 index, void **handle) {
    if (!started) return UNINITIALIZED;
    if (index >= number(-1, "count", 1)) return INVALID;
    *handle = (void *)(size_t)(index + 1);
    return OK;
}
int nvmlDeviceGetName(void *handle, char *name, u32 size) {
    int error = ask(handle, "nvmlDeviceGetName");
    return error ? error : copy(name, size, text(card_of(handle), "name", "NVIDIA GeForce RTX 3060"));
}
int nvmlDeviceGetUUID(void *handle, char *uuid, u32 size) {
    char made[64];
    int error = ask(handle, "nvmlDeviceGetUUID");
    snprintf(made, sizeof made, "GPU-0000000%d-aaaa-bbbb-cccc-000000000000", card_of(handle));
    return error ? error : copy(uuid, size, text(card_of(handle), "uuid", made));
}

struct rates { u32 gpu, memory; };
int nvmlDeviceGetUtilizationRates(void *handle, struct rates *rates) {
    int error = ask(handle, "nvmlDeviceGetUtilizationRates");
    if (error) return error;
    rates->gpu = (u32)number(card_of(handle), "utilization_gpu", 0);
    rates->memory = (u32)number(card_of(handle), "utilization_memory", 0);
    return OK;
}
/* The older call counts the 300 MiB that the driver reserves as used. */
struct memory { u64 total, free, used; };
int nvmlDeviceGetMemoryInfo(void *handle, struct memory *memory) {
    int error = ask(handle, "nvmlDeviceGetMemoryInfo");
    if (error) return error;
    memory->total = number(card_of(handle), "memory_total_mib", 12288) << 20;
    memory->used = (number(card_of(handle), "memory_used_mib", 300) + 300) << 20;
    memory->free = memory->total - memory->used;
    return OK;
}
struct memory_v2 { u32 version; u64 total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(void *handle, struct memory_v2 *memory) {
    int error = ask(handle, "nvmlDeviceGetMemoryInfo_v2");
    if (error) return error;
    memory->total = number(card_of(handle), "memory_total_mib", 12288) << 20;
    memory->used = number(card_of(handle), "memory_used_mib", 300) << 20;
    memory->reserved = 300ull << 20;
    memory->free = memory->total - memory->used - memory->reserved;
    return OK;
}

NUMBER(nvmlDeviceGetPowerUsage, u32, "power_mw", 18500)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, u32, "power_limit_mw", 170000)
NUMBER(nvmlDeviceGetPowerManagementLimit, u32, "power_limit_mw", 170000)
NUMBER(nvmlDeviceGetFanSpeed, u32, "fan_percent", 0)
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, u64, "throttle", 1)
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, u64, "throttle", 1)

int nvmlDeviceGetTemperature(void *handle, int sensor, u32 *celsius) {
    int error = ask(handle, "nvmlDeviceGetTemperature");
    (void)sensor;
    if (!error) *celsius = (u32)number(card_of(handle), "temperature_c", 41);
    return error;
}
int nvmlDeviceGetClockInfo(void *handle, int clock, u32 *mhz) {
    int error = ask(handle, "nvmlDeviceGetClockInfo");
    if (!error) *mhz = (u32)(clock == 2 ? number(card_of(handle), "clock_memory_mhz", 405)
                                        : number(card_of(handle), "clock_sm_mhz", 210));
    return error;
}
int nvmlDeviceGetPcieThroughput(void *handle, int counter, u32 *rate) {
    int error = ask(handle, "nvmlDeviceGetPcieThroughput");
    if (!error) *rate = (u32)number(card_of(handle), counter ? "pcie_rx_kbps" : "pcie_tx_kbps", 0);
    return error;
}
/* Percent, and over how long it was measured. */
#define VIDEO_LOAD(function, key) \
    int function(void *handle, u32 *percent, u32 *period_us) { \
        int error = ask(handle, #function); \
        if (!error) { *percent = (u32)number(card_of(handle), key, 0); *period_us = 167000; } \
        return error; \
    }
VIDEO_LOAD(nvmlDeviceGetEncoderUtilization, "utilization_encoder")
VIDEO_LOAD(nvmlDeviceGetDecoderUtilization, "utilization_decoder")
int nvmlDeviceGetTotalEccErrors(void *handle, int kind, int since, u64 *count) {
    int error = ask(handle, "nvmlDeviceGetTotalEccErrors");
    (void)kind, (void)since;
    if (!error) *count = number(card_of(handle), "ecc_errors_uncorrected", 0);
    return error;
}

struct process { u32 pid; u64 used; u32 gpu_instance, compute_instance; };
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, u32 *count, struct process *processes) {
    char list[1024], *rest = list, *one;
    u32 found = 0;
    int error = ask(handle, "nvmlDeviceGetComputeRunningProcesses_v3");
    if (error) return error;
    snprintf(list, sizeof list, "%s", text(card_of(handle), "processes", ""));
    while ((one = strsep(&rest, ",")) && *one) {
        char *size = strchr(one, ':');
        if (found < *count && processes) {
            processes[found].pid = (u32)atoi(one);
            processes[found].used = !size || size[1] == '-' ? ~0ull : strtoull(size + 1, NULL, 10) << 20;
        }
        found++;
    }
    error = found > *count ? TOO_SMALL : OK;
    *count = found;
    return error;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, u32 *count, struct process *processes) {
    (void)processes;
    *count = 0;
    return ask(handle, "nvmlDeviceGetGraphicsRunningProcesses_v3");
}

/* ---- health: what hardly ever changes ---------------------------------------------------------------------------------- */

NUMBER(nvmlDeviceGetPersistenceMode, u32, "persistence", 1)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, u32, "pcie_generation", 4)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, u32, "pcie_generation_max", 4)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, u32, "pcie_width", 16)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, u32, "pcie_width_max", 16)

int nvmlDeviceGetEccMode(void *handle, u32 *now, u32 *after_reset) {
    int error = ask(handle, "nvmlDeviceGetEccMode");
    if (!error) *now = *after_reset = (u32)number(card_of(handle), "ecc_enabled", 1);
    return error;
}
int nvmlDeviceGetTemperatureThreshold(void *handle, int threshold, u32 *celsius) {
    int error = ask(handle, "nvmlDeviceGetTemperatureThreshold");
    if (!error) *celsius = (u32)(threshold ? number(card_of(handle), "slowdown_c", 93) : number(card_of(handle), "shutdown_c", 98));
    return error;
}
struct margin { u32 version; int celsius; };
int nvmlDeviceGetMarginTemperature(void *handle, struct margin *margin) {
    int error = ask(handle, "nvmlDeviceGetMarginTemperature");
    if (!error) margin->celsius = (int)number(card_of(handle), "margin_c", 52);
    return error;
}
/* The nth number of a list like "1,0,1". */
static u32 part(const char *list, int n) {
    while (n-- && (list = strchr(list, ','))) list++;
    return list ? (u32)atoi(list) : 0;
}
int nvmlDeviceGetRemappedRows(void *handle, u32 *corrected, u32 *uncorrected, u32 *pending, u32 *failed) {
    int error = ask(handle, "nvmlDeviceGetRemappedRows");
    const char *rows = text(card_of(handle), "remapped", "0,0,0,0");
    if (error) return error;
    if (text(card_of(handle), "retired", NULL)) return NOT_SUPPORTED;
    *corrected = part(rows, 0), *uncorrected = part(rows, 1), *pending = part(rows, 2), *failed = part(rows, 3);
    return OK;
}
int nvmlDeviceGetRetiredPages(void *handle, int cause, u32 *count, u64 *addresses) {
    int error = ask(handle, "nvmlDeviceGetRetiredPages");
    const char *pages = text(card_of(handle), "retired", NULL);
    u32 found, room = *count;
    if (error) return error;
    if (!pages) return NOT_SUPPORTED;
    *count = found = part(pages, cause);
    if (room < found || !addresses) return found ? TOO_SMALL : OK;
    while (found--) addresses[found] = 0x1000ull * (found + 1);
    return OK;
}
int nvmlDeviceGetRetiredPagesPendingStatus(void *handle, u32 *pending) {
    int error = ask(handle, "nvmlDeviceGetRetiredPagesPendingStatus");
    const char *pages = text(card_of(handle), "retired", NULL);
    if (error) return error;
    if (!pages) return NOT_SUPPORTED;
    *pending = part(pages, 2);
    return OK;
}
/* Of the numbered values this library knows the memory's temperature alone. */
enum { MEMORY_TEMP = 82, UNSIGNED_INT = 1 };
struct field { u32 id, scope; long long timestamp, latency_us; u32 type; int error; union { double d; u32 u; u64 ull; } value; };
int nvmlDeviceGetFieldValues(void *handle, int count, struct field *fields) {
    int error = ask(handle, "nvmlDeviceGetFieldValues");
    const char *memory = text(card_of(handle), "memory_temperature_c", NULL);
    if (error) return error;
    for (int n = 0; n < count; n++) {
        fields[n].type = UNSIGNED_INT;
        fields[n].error = fields[n].id == MEMORY_TEMP && memory ? OK : NOT_SUPPORTED;
        fields[n].value.u = memory ? (u32)atoi(memory) : 0;
    }
    return OK;
}

/* ---- events ------------------------------------------------------------------------------------------------------------ */

enum { CARDS = 16, XID_EVENT = 8 };
struct set { int watched[CARDS], given[CARDS]; };
struct event { void *device; u64 type, data; u32 gpu_instance, compute_instance; };

/* How many reports stand there, and the nth of them. */
static int reports(int card, int n, u64 *code) {
    char list[1024], *rest = list, *one;
    int found = 0;
    snprintf(list, sizeof list, "%s", text(card, "xids", ""));
    while ((one = strsep(&rest, ",")) && *one)
        if (found++ == n) *code = strtoull(one, NULL, 10);
    return found;
}
NUMBER(nvmlDeviceGetSupportedEventTypes, u64, "events", XID_EVENT)
int nvmlEventSetCreate(struct set **set) {
    if (!started) return UNINITIALIZED;
    *set = calloc(1, sizeof **set);
    return OK;
}
int nvmlEventSetFree(struct set *set) {
    if (!started) return UNINITIALIZED;
    free(set);
    return OK;
}
int nvmlDeviceRegisterEvents(void *handle, u64 types, struct set *set) {
    int error = ask(handle, "nvmlDeviceRegisterEvents"), card = card_of(handle);
    u64 code;
    if (error || !(types & XID_EVENT)) return error ? error : INVALID;
    set->watched[card] = 1;
    set->given[card] = reports(card, -1, &code); /* what was reported before is not told */
    return OK;
}
int nvmlEventSetWait_v2(struct set *set, struct event *event, u32 timeout_ms) {
    u64 code = 0;
    if (!started) return UNINITIALIZED;
    for (int card = 0; card < CARDS; card++)
        if (set->watched[card] && reports(card, set->given[card], &code) > set->given[card]) {
            *event = (struct event){(void *)(size_t)(card + 1), XID_EVENT, code, ~0u, ~0u};
            set->given[card]++;
            return OK;
        }
    usleep(timeout_ms * 1000);
    return TIMEOUT;
}
