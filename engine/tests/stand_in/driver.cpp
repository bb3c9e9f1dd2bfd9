// A stand-in for the CUDA driver, for tests of what calls it where there is no GPU: libcuda.so.1, as far as it is called.
//
// It does as the driver may and no more than it must. What is asked of a stream is done as late as possible: one
// thing each time someone asks whether an event has happened. So a copy reads the host's memory long after it was
// asked for, and whoever waits for nothing finds nothing done. Memory begins full of ones. Calls that need a context
// fail without one; those that a capture does not allow break it; after a kernel has written where nothing is,
// every call fails. It runs the kernels of hardware.rs, by name.

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace {

enum Code : uint32_t {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
};

constexpr size_t MEMORY_BYTES = size_t(4) << 30;
constexpr int SHARED_BYTES_MAX = 227 << 10;
constexpr int SHARED_BYTES_UNASKED = 48 << 10;

using Clock = std::chrono::steady_clock;

// What a stream does: says whether it is done, or has to be tried again.
using Task = std::function<bool()>;

struct Event {
    bool timed = true;
    bool pending = false;
    bool ever = false;
    Clock::time_point when;
    struct Stream* stream = nullptr;
};

struct Graph {
    std::vector<Task> tasks;
};

struct Stream {
    std::deque<Task> tasks;
    std::unique_ptr<Graph> capture;
    bool broken = false;
    std::thread::id capturing;
};

struct Context {
    std::mutex mutex;
    int retained = 0;
    uint32_t lost = SUCCESS;
    std::map<uint64_t, size_t> allocations;
    size_t allocated = 0;
    std::set<Stream*> streams;
};

struct Function {
    std::string name;
    size_t argument_bytes;
    uint32_t shared_bytes_max = SHARED_BYTES_UNASKED;
};

struct Module {
    std::vector<std::unique_ptr<Function>> functions;
};

bool initialised = false;
Context contexts[4];
thread_local Context* current = nullptr;

int devices() {
    const char* count = getenv("FORESAIL_STAND_IN_GPUS");
    return count ? atoi(count) : 2;
}

// What most calls begin with.
uint32_t usable() {
    if (!initialised) return NOT_INITIALIZED;
    if (!current || current->retained == 0) return INVALID_CONTEXT;
    return current->lost;
}

// The same, for calls that a capture of this thread does not allow.
uint32_t usable_outside_captures() {
    if (uint32_t code = usable()) return code;
    std::lock_guard<std::mutex> guard(current->mutex);
    for (Stream* stream : current->streams) {
        if (stream->capture && stream->capturing == std::this_thread::get_id()) {
            stream->broken = true;
            return CAPTURE_UNSUPPORTED;
        }
    }
    return SUCCESS;
}

bool allocated(Context* context, uint64_t at, size_t bytes) {
    auto after = context->allocations.upper_bound(at);
    if (after == context->allocations.begin()) return false;
    auto [from, length] = *--after;
    return at + bytes <= from + length;
}

uint32_t enqueue(Stream* stream, Task task) {
    if (stream->capture) {
        if (stream->broken) return CAPTURE_INVALIDATED;
        stream->capture->tasks.push_back(std::move(task));
    } else {
        stream->tasks.push_back(std::move(task));
    }
    return SUCCESS;
}

// Does one thing, if there is any. Says whether there is nothing more.
bool advance(Stream* stream) {
    if (stream->tasks.empty()) return true;
    if (stream->tasks.front()()) stream->tasks.pop_front();
    return stream->tasks.empty();
}

void lose(Context* context) { context->lost = ILLEGAL_ADDRESS; }

}  // namespace

extern "C" {

// For the stand-ins of other libraries.
uint32_t stand_in_enqueue(void* stream, const std::function<bool()>& task) {
    if (uint32_t code = usable()) return code;
    return enqueue((Stream*)stream, task);
}

uint32_t cuInit(unsigned) {
    initialised = true;
    return SUCCESS;
}
uint32_t cuDriverGetVersion(int* version) {
    const char* wanted = getenv("FORESAIL_STAND_IN_VERSION");
    *version = wanted ? atoi(wanted) : 13000;
    return SUCCESS;
}
uint32_t cuGetErrorString(uint32_t code, const char** text) {
    static const std::map<uint32_t, const char*> words = {
        {INVALID_VALUE, "invalid argument"},
        {INVALID_CONTEXT, "invalid device context"},
        {ILLEGAL_ADDRESS, "an illegal memory access was encountered"},
        {CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"},
        {CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"},
    };
    auto found = words.find(code);
    *text = found == words.end() ? nullptr : found->second;
    return *text ? SUCCESS : INVALID_VALUE;
}
uint32_t cuDeviceGetCount(int* count) {
    *count = devices();
    return initialised ? SUCCESS : NOT_INITIALIZED;
}
uint32_t cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal < devices() ? SUCCESS : INVALID_DEVICE;
}
uint32_t cuDeviceGetName(char* name, int length, int) {
    strncpy(name, "Stand-in GPU", size_t(length));
    return SUCCESS;
}
uint32_t cuDeviceGetAttribute(int* value, int attribute, int) {
    // CUdevice_attribute of cuda.h.
    static const std::map<int, int> values = {{16, 4}, {38, 1 << 20}, {75, 9}, {76, 0}, {97, SHARED_BYTES_MAX}};
    auto found = values.find(attribute);
    if (found == values.end()) return INVALID_VALUE;
    *value = found->second;
    return SUCCESS;
}
uint32_t cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = MEMORY_BYTES;
    return SUCCESS;
}
uint32_t cuDevicePrimaryCtxRetain(Context** context, int device) {
    *context = &contexts[device];
    std::lock_guard<std::mutex> guard(contexts[device].mutex);
    contexts[device].retained++;
    return SUCCESS;
}
uint32_t cuDevicePrimaryCtxRelease_v2(int device) {
    std::lock_guard<std::mutex> guard(contexts[device].mutex);
    contexts[device].retained--;
    return SUCCESS;
}
uint32_t cuCtxSetCurrent(Context* context) {
    current = context;
    return context->lost;
}

uint32_t cuStreamCreate(Stream** stream, unsigned) {
    if (uint32_t code = usable()) return code;
    *stream = new Stream;
    std::lock_guard<std::mutex> guard(current->mutex);
    current->streams.insert(*stream);
    return SUCCESS;
}
uint32_t cuStreamDestroy_v2(Stream* stream) {
    if (uint32_t code = usable()) return code;
    std::lock_guard<std::mutex> guard(current->mutex);
    current->streams.erase(stream);
    delete stream;
    return SUCCESS;
}

uint32_t cuMemGetInfo_v2(size_t* free, size_t* total) {
    if (uint32_t code = usable()) return code;
    std::lock_guard<std::mutex> guard(current->mutex);
    *free = MEMORY_BYTES - current->allocated;
    *total = MEMORY_BYTES;
    return SUCCESS;
}
uint32_t cuMemAlloc_v2(uint64_t* at, size_t bytes) {
    if (uint32_t code = usable_outside_captures()) return code;
    if (bytes == 0) return INVALID_VALUE;
    std::lock_guard<std::mutex> guard(current->mutex);
    if (bytes > MEMORY_BYTES - current->allocated) return OUT_OF_MEMORY;
    void* memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(memory, 0xff, bytes);
    *at = (uint64_t)memory;
    current->allocations[*at] = bytes;
    current->allocated += bytes;
    return SUCCESS;
}
uint32_t cuMemFree_v2(uint64_t at) {
    if (uint32_t code = usable_outside_captures()) return code;
    // Streams of other threads are not waited for here: each test has its own memory.
    std::lock_guard<std::mutex> guard(current->mutex);
    auto found = current->allocations.find(at);
    if (found == current->allocations.end()) return INVALID_VALUE;
    current->allocated -= found->second;
    current->allocations.erase(found);
    free((void*)at);
    return SUCCESS;
}
uint32_t cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
    if (uint32_t code = usable_outside_captures()) return code;
    *memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    return *memory ? SUCCESS : OUT_OF_MEMORY;
}
uint32_t cuMemFreeHost(void* memory) {
    free(memory);
    return usable();
}

static uint32_t copy(void* to, const void* from, size_t bytes, uint64_t checked, Stream* stream) {
    if (uint32_t code = usable()) return code;
    Context* context = current;
    return enqueue(stream, [=] {
        std::lock_guard<std::mutex> guard(context->mutex);
        if (!allocated(context, checked, bytes)) lose(context);
        else memcpy(to, from, bytes);
        return true;
    });
}
uint32_t cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream* stream) {
    return copy((void*)to, from, bytes, to, stream);
}
uint32_t cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
    return copy(to, (const void*)from, bytes, from, stream);
}
uint32_t cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Stream* stream) {
    return copy((void*)to, (const void*)from, bytes, to, stream);
}
uint32_t cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, Stream* stream) {
    if (uint32_t code = usable()) return code;
    return enqueue(stream, [=] {
        memset((void*)at, value, bytes);
        return true;
    });
}

uint32_t cuEventCreate(Event** event, unsigned flags) {
    if (uint32_t code = usable()) return code;
    *event = new Event;
    (*event)->timed = !(flags & 2);
    return SUCCESS;
}
uint32_t cuEventDestroy_v2(Event* event) {
    delete event;
    return usable();
}
uint32_t cuEventRecord(Event* event, Stream* stream) {
    if (uint32_t code = usable()) return code;
    if (stream->capture) {
        stream->broken = true;
        return CAPTURE_UNSUPPORTED;
    }
    event->stream = stream;
    event->pending = event->ever = true;
    return enqueue(stream, [=] {
        event->pending = false;
        event->when = Clock::now();
        return true;
    });
}
uint32_t cuEventQuery(Event* event) {
    if (uint32_t code = usable_outside_captures()) return code;
    if (!event->pending) return SUCCESS;
    advance(event->stream);
    if (current->lost) return current->lost;
    return event->pending ? NOT_READY : SUCCESS;
}
uint32_t cuEventElapsedTime_v2(float* milliseconds, Event* first, Event* second) {
    if (uint32_t code = usable()) return code;
    if (!first->timed || !second->timed || !first->ever || !second->ever) return INVALID_HANDLE;
    if (first->pending || second->pending) return NOT_READY;
    *milliseconds = std::chrono::duration<float, std::milli>(second->when - first->when).count();
    return SUCCESS;
}

uint32_t cuModuleLoadData(Module** module, const void* image) {
    if (uint32_t code = usable_outside_captures()) return code;
    if (memcmp(image, "\x7f" "ELF", 4) != 0) return INVALID_IMAGE;
    *module = new Module;
    return SUCCESS;
}
uint32_t cuModuleUnload(Module* module) {
    delete module;
    return usable();
}
uint32_t cuModuleGetFunction(Function** function, Module* module, const char* name) {
    static const std::map<std::string, size_t> known = {{"affine", 24}, {"wait", 8}, {"shared", 16}};
    auto found = known.find(name);
    if (found == known.end()) return NOT_FOUND;
    module->functions.push_back(std::make_unique<Function>(Function{name, found->second}));
    *function = module->functions.back().get();
    return usable();
}
uint32_t cuFuncLoad(Function*) { return usable_outside_captures(); }
uint32_t cuFuncGetAttribute(int* value, int, Function*) {
    *value = 0;
    return usable();
}
uint32_t cuFuncSetAttribute(Function* function, int attribute, int value) {
    // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES.
    if (attribute != 8 || value > SHARED_BYTES_MAX) return INVALID_VALUE;
    function->shared_bytes_max = uint32_t(value);
    return usable();
}

// CUlaunchAttribute and CUlaunchConfig of cuda.h.
struct LaunchAttribute {
    uint32_t id;
    uint32_t pad;
    alignas(8) unsigned char value[64];
};
struct LaunchConfig {
    uint32_t blocks[3], threads[3], shared_bytes;
    Stream* stream;
    LaunchAttribute* attributes;
    uint32_t attribute_count;
};

static bool run(Context* context, const Function& function, const std::vector<unsigned char>& arguments) {
    const unsigned char* at = arguments.data();
    auto read = [&](auto& value) {
        memcpy(&value, at, sizeof value);
        at += sizeof value;
    };
    if (function.name == "affine") {
        float* values;
        uint32_t count;
        float factor, shift;
        read(values), read(count), read(factor), read(shift);
        std::lock_guard<std::mutex> guard(context->mutex);
        if (!allocated(context, (uint64_t)values, 4 * size_t(count))) {
            lose(context);
            return true;
        }
        for (uint32_t i = 0; i < count; i++) values[i] = values[i] * factor + shift;
    } else if (function.name == "wait") {
        uint64_t nanoseconds;
        read(nanoseconds);
        std::this_thread::sleep_for(std::chrono::nanoseconds(nanoseconds));
    } else {
        uint32_t *sum, words, total = 0;
        read(sum), read(words);
        for (uint32_t i = 0; i < words; i++) total += i;
        *sum = total;
    }
    return true;
}

uint32_t cuLaunchKernelEx(const LaunchConfig* config, Function* function, void** parameters, void** extra) {
    if (uint32_t code = usable()) return code;
    for (int i = 0; i < 3; i++) {
        if (config->blocks[i] == 0 || config->threads[i] == 0) return INVALID_VALUE;
    }
    if (config->threads[0] > 1024 || config->shared_bytes > function->shared_bytes_max || extra) return INVALID_VALUE;
    for (uint32_t i = 0; i < config->attribute_count; i++) {
        // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, and that it is allowed.
        if (config->attributes[i].id != 6 || config->attributes[i].value[0] != 1) return INVALID_VALUE;
    }
    auto* bytes = (const unsigned char*)parameters[0];
    std::vector<unsigned char> arguments(bytes, bytes + function->argument_bytes);
    Context* context = current;
    return enqueue(config->stream, [=, copy = *function] { return run(context, copy, arguments); });
}

uint32_t cuStreamBeginCapture_v2(Stream* stream, int mode) {
    if (uint32_t code = usable()) return code;
    // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: in another mode, what other tests do meanwhile would break it.
    if (mode != 1 || stream->capture) return INVALID_VALUE;
    stream->capture = std::make_unique<Graph>();
    stream->broken = false;
    stream->capturing = std::this_thread::get_id();
    return SUCCESS;
}
uint32_t cuStreamEndCapture(Stream* stream, Graph** graph) {
    if (!stream->capture) return INVALID_VALUE;
    *graph = stream->capture.release();
    if (!stream->broken) return usable();
    delete *graph;
    *graph = nullptr;
    return CAPTURE_INVALIDATED;
}
uint32_t cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long) {
    *executable = new Graph(*graph);
    return usable_outside_captures();
}
uint32_t cuGraphUpload(Graph*, Stream*) { return usable_outside_captures(); }
uint32_t cuGraphLaunch(Graph* graph, Stream* stream) {
    if (uint32_t code = usable()) return code;
    for (const Task& task : graph->tasks) enqueue(stream, task);
    return SUCCESS;
}
uint32_t cuGraphDestroy(Graph* graph) {
    delete graph;
    return usable();
}
uint32_t cuGraphExecDestroy(Graph* graph) {
    delete graph;
    return usable();
}

}  // extern "C"
