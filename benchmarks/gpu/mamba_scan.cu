// mamba-ssm's selective scan as its encoders call it, behind two plain functions: the same templates of the same
// checkout, without Python or PyTorch in between. `mamba.py` beside this compiles it and says how it is called.

#include <cuda_runtime.h>

#include "static_switch.h"

// Only what is called: B and C by event, softplus, a gate.
#undef BOOL_SWITCH
#define BOOL_SWITCH(COND, NAME, ...) SWITCH_##NAME(COND, NAME, __VA_ARGS__)
#define SWITCH_ALWAYS(COND, NAME, ...) [&] { constexpr bool NAME = true; return __VA_ARGS__(); }()
#define SWITCH_kIsVariableB SWITCH_ALWAYS
#define SWITCH_kIsVariableC SWITCH_ALWAYS
#define SWITCH_kDeltaSoftplus SWITCH_ALWAYS
#define SWITCH_kHasZ SWITCH_ALWAYS
#define SWITCH_kIsEvenLen(COND, NAME, ...)                                    \
    [&] {                                                                     \
        if (COND) { constexpr bool NAME = true; return __VA_ARGS__(); }       \
        else { constexpr bool NAME = false; return __VA_ARGS__(); }           \
    }()

#include "selective_scan_fwd_kernel.cuh"
#include "selective_scan_bwd_kernel.cuh"

static bool is_known(const SSMParamsBase &p) {
    return p.is_variable_B && p.is_variable_C && p.delta_softplus && p.z_ptr != nullptr;
}

extern "C" int params_size(int backward) { return backward ? sizeof(SSMParamsBwd) : sizeof(SSMParamsBase); }

extern "C" int scan_forward(int bfloat16, SSMParamsBase *params, void *stream) {
    if (!is_known(*params)) return cudaErrorInvalidValue;
    auto own = static_cast<cudaStream_t>(stream);
    if (bfloat16) selective_scan_fwd_cuda<at::BFloat16, float>(*params, own);
    else selective_scan_fwd_cuda<float, float>(*params, own);
    return cudaGetLastError();
}

extern "C" int scan_backward(int bfloat16, SSMParamsBwd *params, void *stream) {
    if (!is_known(*params)) return cudaErrorInvalidValue;
    auto own = static_cast<cudaStream_t>(stream);
    if (bfloat16) selective_scan_bwd_cuda<at::BFloat16, float>(*params, own);
    else selective_scan_bwd_cuda<float, float>(*params, own);
    return cudaGetLastError();
}
