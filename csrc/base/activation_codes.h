// Codes of the activations, for arguments of kernels. Their formulas are in base/activation.h.
#pragma once

namespace inpaint {

// Codes and their names in Python, both in the same order.
enum class Activation { kIdentity, kRelu, kLeakyRelu, kElu, kSilu, kTanh, kSigmoid };
constexpr const char* kActivationNames[] = {
    "identity", "relu", "leaky_relu", "elu", "silu", "tanh", "sigmoid"};

constexpr float kLeakySlope = 0.2f;

}  // namespace inpaint
