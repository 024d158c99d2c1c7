// What the Rust bindings lack of libtorch: autocast with its type, TF32, deterministic algorithms, the state of the
// random generators, the peak of a device's memory, the instruction set in use, what the driver says about a GPU, SGD over
// many tensors at once, and copies on a stream of their own. Errors come back as a return value; no exception crosses into Rust.

#include <ATen/Context.h>
#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/empty.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/env.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

namespace {

// Copies text to `to` if it fits; its length in bytes.
std::int64_t copy(const std::string& text, char* to, std::int64_t capacity) {
  const auto length = static_cast<std::int64_t>(text.size());
  if (length <= capacity) {
    std::memcpy(to, text.data(), text.size());
  }
  return length;
}

// The message of an exception, shortened to `capacity`; its length.
template <typename Work>
std::int64_t refused(char* reason, std::int64_t capacity, const Work& work) {
  try {
    work();
    return 0;
  } catch (const std::exception& error) {
    const std::string text = std::string("libtorch: ") + error.what();
    return copy(text.substr(0, static_cast<std::size_t>(capacity)), reason, capacity);
  } catch (...) {
    return copy("libtorch: an unknown exception", reason, capacity);
  }
}

// The current stream of a GPU.
c10::Stream current_stream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

c10::Device gpu(int index) { return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index)); }

// The default generator of the CPU (-1) or of a GPU.
const at::Generator& generator(int cuda) {
  const auto device =
      cuda < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(cuda));
  return at::globalContext().defaultGenerator(device);
}

}  // namespace

extern "C" {

// Products in bfloat16 until thinet_leave_autocast. 0: done.
int thinet_enter_autocast(int cuda) {
  try {
    const auto device = cuda ? at::kCUDA : at::kCPU;
    at::autocast::increment_nesting();
    at::autocast::set_autocast_dtype(device, at::kBFloat16);
    at::autocast::set_autocast_enabled(device, true);
    return 0;
  } catch (...) {
    return 1;
  }
}

int thinet_leave_autocast(int cuda) {
  try {
    at::autocast::set_autocast_enabled(cuda ? at::kCUDA : at::kCPU, false);
    // The copies of the weights in bfloat16 are kept for one pass only: a training step changes the weights.
    if (at::autocast::decrement_nesting() == 0) {
      at::autocast::clear_cache();
    }
    return 0;
  } catch (...) {
    return 1;
  }
}

int thinet_set_tf32(int allowed) {
  try {
    at::globalContext().setAllowTF32CuBLAS(allowed != 0);
    at::globalContext().setAllowTF32CuDNN(allowed != 0);
    return 0;
  } catch (...) {
    return 1;
  }
}

// 1: convolutions or products may round to TF32; 0: neither; -1: cannot be told.
int thinet_tf32() {
  try {
    const auto& context = at::globalContext();
    return context.allowTF32CuDNN(at::Float32Op::CONV) || context.allowTF32CuBLAS();
  } catch (...) {
    return -1;
  }
}

int thinet_set_deterministic(int required) {
  try {
    at::globalContext().setDeterministicAlgorithms(required != 0, /*warn_only=*/false);
    at::globalContext().setDeterministicCuDNN(required != 0);
    at::globalContext().setDeterministicFillUninitializedMemory(false);
    at::globalContext().setBenchmarkCuDNN(false);
    return 0;
  } catch (...) {
    return 1;
  }
}

// Most bytes of a GPU that tensors held at one time since the last reset; -1: cannot be told.
std::int64_t thinet_peak_gpu_bytes(int index, int reset) {
  try {
    auto* allocator = at::getDeviceAllocator(at::kCUDA);
    if (!allocator->initialized()) {
      return -1;
    }
    const auto device = static_cast<c10::DeviceIndex>(index);
    const auto stats = allocator->getDeviceStats(device);
    if (reset) {
      allocator->resetPeakStats(device);
    }
    return stats.allocated_bytes[0].peak;
  } catch (...) {
    return -1;
  }
}

// Copies the state of a generator to `to` if it fits; its length in bytes, or -1.
std::int64_t thinet_generator_state(int cuda, unsigned char* to, std::int64_t capacity) {
  try {
    auto source = generator(cuda);
    const std::lock_guard<std::mutex> lock(source.mutex());
    const auto state = source.get_state().contiguous();
    if (state.numel() <= capacity) {
      std::memcpy(to, state.data_ptr(), static_cast<std::size_t>(state.numel()));
    }
    return state.numel();
  } catch (...) {
    return -1;
  }
}

int thinet_set_generator_state(int cuda, const unsigned char* from, std::int64_t length) {
  try {
    auto state = at::empty({length}, at::kByte);
    std::memcpy(state.data_ptr(), from, static_cast<std::size_t>(length));
    auto target = generator(cuda);
    const std::lock_guard<std::mutex> lock(target.mutex());
    target.set_state(state);
    return 0;
  } catch (...) {
    return 1;
  }
}

// The instruction set of libtorch's own kernels, such as AVX2, as `copy`; -1: cannot be told.
std::int64_t thinet_cpu_capability(char* to, std::int64_t capacity) {
  try {
    return copy(at::get_cpu_capability(), to, capacity);
  } catch (...) {
    return -1;
  }
}

// The name of the GPU that libtorch knows by this index, as `copy`; -1: cannot be told. The driver is asked, which is there
// wherever a GPU is used; libtorch's own functions need CUDA's headers.
std::int64_t thinet_gpu_name(int index, char* to, std::int64_t capacity) {
  try {
    void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (driver == nullptr) {
      return -1;
    }
    const auto start = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
    const auto get = reinterpret_cast<int (*)(int*, int)>(dlsym(driver, "cuDeviceGet"));
    const auto name = reinterpret_cast<int (*)(char*, int, int)>(dlsym(driver, "cuDeviceGetName"));
    int device = 0;
    char text[256] = {};
    if (!start || !get || !name || start(0) || get(&device, index) || name(text, sizeof(text) - 1, device)) {
      return -1;
    }
    return copy(text, to, capacity);
  } catch (...) {
    return -1;
  }
}

// Sets a variable of the environment under the lock that libtorch reads it with. 0: done.
int thinet_set_variable(const char* name, const char* value) {
  try {
    c10::utils::set_env(name, value);
    return 0;
  } catch (...) {
    return 1;
  }
}

// One step of SGD on `count` tensors on one device, in place; where `first` is set, velocities are written and not read. Without
// momentum there are no velocities. 0: done; else the length of the reason, whose first `capacity` bytes are written to `reason`.
std::int64_t thinet_fused_sgd(const at::Tensor* const* weights, const at::Tensor* const* gradients,
                              const at::Tensor* const* velocities, std::int64_t count, int has_velocities, double lr,
                              double momentum, double decay, int nesterov, int first, char* reason,
                              std::int64_t capacity) {
  return refused(reason, capacity, [&] {
    const auto list = [](const at::Tensor* const* tensors, std::int64_t length) {
      std::vector<at::Tensor> all;
      for (std::int64_t i = 0; i < length; ++i) {
        all.push_back(*tensors[i]);
      }
      return all;
    };
    const auto w = list(weights, count), g = list(gradients, count), v = list(velocities, has_velocities ? count : 0);
    at::_fused_sgd_(w, g, v, decay, momentum, lr, /*dampening=*/0.0, nesterov != 0, /*maximize=*/false, first != 0);
  });
}

// Loads the library that registers libtorch's kernels for GPUs; nothing happens if the program is linked with it. Returns 0, or the length
// of the loader's message.
std::int64_t thinet_load_cuda(char* reason, std::int64_t capacity) {
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr) {
    return 0;
  }
  const char* message = dlerror();
  const std::string text = message == nullptr ? "no reason given" : message;
  return copy(text.substr(0, static_cast<std::size_t>(capacity)), reason, capacity);
}

// What the driver says about itself and a GPU: `facts` becomes the version of CUDA that it supports (12040 is 12.4), the number of
// GPUs, and the compute capability of this one (90 is 9.0); 0 for what it does not say. 0: it was asked; 1: there is no driver.
int thinet_driver_facts(int index, std::int64_t* facts) {
  try {
    facts[0] = facts[1] = facts[2] = 0;
    void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (driver == nullptr) {
      return 1;
    }
    const auto version = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDriverGetVersion"));
    const auto start = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
    const auto count = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDeviceGetCount"));
    const auto get = reinterpret_cast<int (*)(int*, int)>(dlsym(driver, "cuDeviceGet"));
    const auto attribute = reinterpret_cast<int (*)(int*, int, int)>(dlsym(driver, "cuDeviceGetAttribute"));
    int found = 0;
    if (version && !version(&found)) {
      facts[0] = found;
    }
    if (!start || !count || !get || !attribute || start(0)) {
      return 0;
    }
    if (!count(&found)) {
      facts[1] = found;
    }
    // The numbers of the two attributes in cuda.h: the capability's major and minor part.
    int device = 0, major = 0, minor = 0;
    if (!get(&device, index) && !attribute(&major, 75, device) && !attribute(&minor, 76, device)) {
      facts[2] = 10 * major + minor;
    }
    return 0;
  } catch (...) {
    return 1;
  }
}

// A tensor of `length` bytes that are not set, in memory from which a GPU copies by itself if `pinned`; null where that fails.
at::Tensor* thinet_bytes(std::int64_t length, int pinned, char* reason, std::int64_t capacity) {
  at::Tensor* bytes = nullptr;
  refused(reason, capacity, [&] {
    bytes = new at::Tensor(at::empty({length}, at::TensorOptions().dtype(at::kByte).pinned_memory(pinned != 0)));
  });
  return bytes;
}

// A stream of a GPU besides the one that it computes on; null where that fails.
c10::Stream* thinet_new_stream(int index, char* reason, std::int64_t capacity) {
  c10::Stream* stream = nullptr;
  refused(reason, capacity, [&] {
    const c10::impl::VirtualGuardImpl device(c10::kCUDA);
    stream = new c10::Stream(device.getStreamFromGlobalPool(gpu(index)));
  });
  return stream;
}

void thinet_free_stream(c10::Stream* stream) { delete stream; }

// A copy of a tensor on the stream's GPU, made on that stream; what the GPU computes from now on waits for it. Returns at once if the
// tensor's memory is pinned: libtorch keeps that memory until the copy is done. Null where that fails.
at::Tensor* thinet_copy_on(const c10::Stream* stream, const at::Tensor* from, char* reason, std::int64_t capacity) {
  at::Tensor* copied = nullptr;
  refused(reason, capacity, [&] {
    const auto device = stream->device();
    const auto computing = current_stream(device);
    c10::Event done(device.type());
    at::Tensor there;
    {
      const c10::StreamGuard guard(*stream);
      there = from->to(from->options().device(device).pinned_memory(false), /*non_blocking=*/true, /*copy=*/true);
      done.record(*stream);
    }
    done.block(computing);
    // Its memory belongs to the copying stream: it is not used again before the computing one is done with it.
    there.record_stream(computing);
    copied = new at::Tensor(std::move(there));
  });
  return copied;
}

// Marks what the GPU has been asked to compute so far; null where that fails.
c10::Event* thinet_new_mark(int index, char* reason, std::int64_t capacity) {
  c10::Event* mark = nullptr;
  refused(reason, capacity, [&] {
    c10::Event event(c10::kCUDA);
    event.record(current_stream(gpu(index)));
    mark = new c10::Event(std::move(event));
  });
  return mark;
}

// Waits until the GPU has come to the mark. 0: done; else the length of the reason.
std::int64_t thinet_wait_for(const c10::Event* mark, char* reason, std::int64_t capacity) {
  return refused(reason, capacity, [&] { mark->synchronize(); });
}

void thinet_free_mark(c10::Event* mark) { delete mark; }
}
