/* A CUDA driver without a GPU, for `.ci/cuda-dry-run`.
 *
 * The device's memory is the host's, filled with zeros, and launches do nothing: results mean nothing. But every kernel of a program
 * reaches the compiler, and what it may not do while a graph is recorded is refused as the driver refuses it.
 *
 * DRY_RUN_PTX names a folder for the modules that are loaded; a line of counts is printed at the end.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
typedef uint64_t Address;
typedef void *Handle;

enum { SUCCESS = 0, OUT_OF_MEMORY = 2, UNSUPPORTED_IN_CAPTURE = 900 };
enum { HOST_MEMORY = 1 };
/* A graph is a number: so many kernels above this one. */
#define GRAPHS 0x2000000

static long launches, modules, graphs, replays, refused;
static int capturing;
static uintptr_t captured;

static Handle next_handle(void) {
    static uintptr_t last = 0x1000;
    return (Handle)++last;
}

static Result refuse_in_capture(const char *call) {
    if (!capturing) return SUCCESS;
    refused++;
    fprintf(stderr, "refused while a graph is recorded: %s\n", call);
    return UNSUPPORTED_IN_CAPTURE;
}

__attribute__((destructor)) static void report(void) {
    if (modules)
        fprintf(stderr, "dry run: %ld launches of %ld kernels, %ld graphs, %ld replays, %ld calls refused\n", launches, modules, graphs,
                replays, refused);
}

/* The device: an H100's limits. */

Result cuInit(unsigned flags) { return SUCCESS; }
Result cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }
Result cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
Result cuDeviceGet(int *device, int ordinal) { return *device = 0, SUCCESS; }
Result cuDeviceGetName(char *name, int length, int device) { return snprintf(name, length, "dry run of an H100"), SUCCESS; }
Result cuDeviceGetUuid_v2(char *uuid, int device) { return memset(uuid, 1, 16), SUCCESS; }
Result cuDeviceGetPCIBusId(char *id, int length, int device) { return snprintf(id, length, "0000:01:00.0"), SUCCESS; }
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { return *bytes = (size_t)80 << 30, SUCCESS; }
Result cuMemGetInfo_v2(size_t *available, size_t *total) { return *available = *total = (size_t)80 << 30, SUCCESS; }

Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 1: case 2: case 3: *value = 1024; break;           /* threads of a block, and along x and y */
    case 4: *value = 64; break;                             /* along z */
    case 5: *value = 2147483647; break;                     /* blocks along x */
    case 6: case 7: *value = 65535; break;                  /* along y and z */
    case 8: *value = 48 << 10; break;                       /* shared memory of a block */
    case 10: *value = 32; break;                            /* threads of a warp */
    case 16: *value = 132; break;                           /* multiprocessors */
    case 38: *value = 50 << 20; break;                      /* second-level cache */
    case 75: *value = 9; break;                             /* compute capability */
    case 76: *value = 0; break;
    case 81: *value = 228 << 10; break;                     /* shared memory of a multiprocessor */
    case 97: *value = 227 << 10; break;                     /* of a block that asks for more */
    default: *value = 1;
    }
    return SUCCESS;
}

Result cuDevicePrimaryCtxRetain(Handle *context, int device) { return *context = (Handle)1, SUCCESS; }
Result cuDevicePrimaryCtxRelease_v2(int device) { return SUCCESS; }
Result cuCtxSetCurrent(Handle context) { return SUCCESS; }
Result cuCtxGetCurrent(Handle *context) { return *context = (Handle)1, SUCCESS; }
Result cuCtxGetStreamPriorityRange(int *least, int *greatest) { return *least = 0, *greatest = -5, SUCCESS; }
Result cuCtxSynchronize(void) { return refuse_in_capture("cuCtxSynchronize"); }
Result cuGetErrorName(int error, const char **text) { return *text = "DRY_RUN", SUCCESS; }
Result cuGetErrorString(int error, const char **text) { return *text = "an error of the dry run", SUCCESS; }

/* Streams and events: all work is over at once. */

Result cuStreamCreate(Handle *stream, unsigned flags) { return *stream = next_handle(), SUCCESS; }
Result cuStreamCreateWithPriority(Handle *stream, unsigned flags, int priority) { return cuStreamCreate(stream, flags); }
Result cuStreamDestroy_v2(Handle stream) { return SUCCESS; }
Result cuStreamSynchronize(Handle stream) { return refuse_in_capture("cuStreamSynchronize"); }
Result cuStreamQuery(Handle stream) { return refuse_in_capture("cuStreamQuery"); }
Result cuStreamWaitEvent(Handle stream, Handle event, unsigned flags) { return SUCCESS; }
Result cuEventCreate(Handle *event, unsigned flags) { return *event = next_handle(), SUCCESS; }
Result cuEventRecord(Handle event, Handle stream) { return SUCCESS; }
Result cuEventQuery(Handle event) { return refuse_in_capture("cuEventQuery"); }
Result cuEventSynchronize(Handle event) { return refuse_in_capture("cuEventSynchronize"); }
Result cuEventElapsedTime(float *milliseconds, Handle from, Handle to) { return *milliseconds = 1, SUCCESS; }
Result cuEventElapsedTime_v2(float *milliseconds, Handle from, Handle to) { return *milliseconds = 1, SUCCESS; }
Result cuEventDestroy_v2(Handle event) { return SUCCESS; }

/* Memory. */

static Result allocate(void **memory, size_t bytes) {
    if (posix_memalign(memory, 512, bytes ? bytes : 1)) return OUT_OF_MEMORY;
    memset(*memory, 0, bytes);
    return SUCCESS;
}

Result cuMemAlloc_v2(Address *memory, size_t bytes) {
    Result result = refuse_in_capture("cuMemAlloc");
    return result ? result : allocate((void **)memory, bytes);
}
Result cuMemAllocAsync(Address *memory, size_t bytes, Handle stream) {
    Result result = refuse_in_capture("cuMemAllocAsync");
    return result ? result : allocate((void **)memory, bytes);
}
Result cuMemFree_v2(Address memory) { return free((void *)memory), refuse_in_capture("cuMemFree"); }
Result cuMemFreeAsync(Address memory, Handle stream) { return free((void *)memory), SUCCESS; }
Result cuMemAllocHost_v2(void **memory, size_t bytes) { return allocate(memory, bytes); }
Result cuMemFreeHost(void *memory) { return free(memory), SUCCESS; }

static Result copy(void *to, const void *from, size_t bytes, const char *call) {
    Result result = refuse_in_capture(call);
    if (!result) memmove(to, from, bytes);
    return result;
}

Result cuMemcpyHtoD_v2(Address to, const void *from, size_t bytes) { return copy((void *)to, from, bytes, "cuMemcpyHtoD"); }
Result cuMemcpyDtoH_v2(void *to, Address from, size_t bytes) { return copy(to, (void *)from, bytes, "cuMemcpyDtoH"); }
Result cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, Handle stream) { return memmove((void *)to, from, bytes), SUCCESS; }
Result cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, Handle stream) { return memmove(to, (void *)from, bytes), SUCCESS; }
Result cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, Handle stream) { return memmove((void *)to, (void *)from, bytes), SUCCESS; }
Result cuMemsetD8Async(Address to, unsigned char value, size_t bytes, Handle stream) { return memset((void *)to, value, bytes), SUCCESS; }

typedef struct {
    size_t x, y;
    int kind;
    void *host;
    Address device;
    Handle array;
    size_t pitch;
} Side;
typedef struct {
    Side from, to;
    size_t width, height;
} Copy2D;

static char *row(const Side *side, size_t index) {
    char *start = side->kind == HOST_MEMORY ? side->host : (char *)side->device;
    return start + (index + side->y) * side->pitch + side->x;
}

Result cuMemcpy2DAsync_v2(const Copy2D *of, Handle stream) {
    for (size_t index = 0; index < of->height; index++) memmove(row(&of->to, index), row(&of->from, index), of->width);
    return SUCCESS;
}

/* Kernels. */

Result cuModuleLoadData(Handle *module, const void *image) {
    const char *folder = getenv("DRY_RUN_PTX"), *entry = strstr(image, ".entry ");
    char name[128] = "unnamed", path[1024];
    if (entry) sscanf(entry, ".entry %120[A-Za-z0-9_]", name);
    *module = next_handle();
    snprintf(path, sizeof path, "%s/%03ld_%s.ptx", folder ? folder : "/dev/null", modules++, name);
    FILE *file = folder ? fopen(path, "w") : NULL;
    if (file) {
        fputs(image, file);
        fclose(file);
    }
    return SUCCESS;
}

static Result launch(void) {
    launches++;
    captured += capturing;
    return SUCCESS;
}

Result cuModuleUnload(Handle module) { return SUCCESS; }
Result cuModuleGetFunction(Handle *function, Handle module, const char *name) { return *function = module, SUCCESS; }
Result cuFuncSetAttribute(Handle function, int attribute, int value) { return SUCCESS; }
Result cuFuncGetAttribute(int *value, int attribute, Handle function) { return *value = 0, SUCCESS; }
Result cuLaunchKernel(Handle function, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y, unsigned threads_z,
                      unsigned shared, Handle stream, void **arguments, void **more) {
    return launch();
}
Result cuLaunchKernelEx(const void *settings, Handle function, void **arguments, void **more) { return launch(); }

/* Graphs. */

Result cuStreamBeginCapture_v2(Handle stream, int mode) { return capturing = 1, captured = 0, SUCCESS; }
Result cuStreamIsCapturing(Handle stream, int *status) { return *status = capturing, SUCCESS; }
Result cuStreamEndCapture(Handle stream, Handle *graph) {
    capturing = 0;
    graphs++;
    return *graph = (Handle)(GRAPHS + captured), SUCCESS;
}
Result cuGraphInstantiateWithFlags(Handle *executable, Handle graph, unsigned long long flags) { return *executable = graph, SUCCESS; }
Result cuGraphGetNodes(Handle graph, Handle *nodes, size_t *count) {
    if (!nodes) *count = (uintptr_t)graph - GRAPHS;
    for (size_t index = 0; nodes && index < *count; index++) nodes[index] = next_handle();
    return SUCCESS;
}
Result cuGraphNodeGetType(Handle node, int *type) { return *type = 0, SUCCESS; }
Result cuGraphUpload(Handle executable, Handle stream) { return SUCCESS; }
Result cuGraphLaunch(Handle executable, Handle stream) { return replays++, SUCCESS; }
Result cuGraphDestroy(Handle graph) { return SUCCESS; }
Result cuGraphExecDestroy(Handle executable) { return SUCCESS; }
