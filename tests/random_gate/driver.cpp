// Evaluations one behind the other through the Verilated chain, a burst of cases at a time.
//
// "columns.h" names the columns of a case and of a result, each 64 bits, and says in which cycles of an evaluation an
// input has to be right. In all others noise stands on it, so that nothing can depend on what is there by chance. Before
// every evaluation there is a pause, or another one that is given up: of nothing but noise.
//
// The model has after an edge the outputs of the cycle whose inputs it had before it (Design.board in
// sim/board/verilate.py).

#include <cstdint>
#include <memory>

#include "Vtop.h"
#include "columns.h"

namespace {

constexpr int LOAD = -1, EVALUATION = 8, LEAVE = EVALUATION;

uint64_t masked(uint64_t value, int width) { return width < 64 ? value & ((uint64_t(1) << width) - 1) : value; }

int64_t extended(uint64_t value, int width) { return int64_t(value << (64 - width)) >> (64 - width); }

class Noise {
public:
    explicit Noise(uint64_t seed) : state(seed) {}
    uint64_t next() {       // splitmix64
        uint64_t z = state += 0x9e3779b97f4a7c15;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }

private:
    uint64_t state;
};

class Chain {
public:
    Chain() : dut(&context, "chain") {
        dut.clk = 0;
        dut.rst = 1;
        dut.eval();
        for (int n = 0; n < 4; ++n) cycle();
        dut.rst = 0;
    }
    ~Chain() { dut.final(); }

    void evaluate(const int64_t *given, int64_t *seen, Noise &noise) {
        const int before = int(noise.next() & 7);
        const bool given_up = noise.next() & 1;
        for (int n = 0; n < before; ++n) {
            disturb(noise);
            dut.commit = 0;
            strobes(given_up ? n : -1);
            cycle();
        }
        for (int t = FIRST_CYCLE; t <= LAST_CYCLE; ++t) {
            disturb(noise);
            dut.commit = 0;     // of a reference nobody speaks
#define X(name, column, width, first, last) \
            if (t >= first && t <= last) dut.name = masked(uint64_t(given[column]), width);
            INPUTS(X)
#undef X
            strobes(t);
            cycle();
#define X(name, column, width, is_signed, at) \
            if (t == at) seen[column] = is_signed ? extended(dut.name, width) : int64_t(dut.name);
            OUTPUTS(X)
#undef X
        }
    }

private:
    void strobes(int t) {
        dut.at = t >= 0 && t < EVALUATION ? 1 << t : 0;
        dut.load = t == LOAD;
        dut.leave = t == LEAVE;
    }

    void disturb(Noise &noise) {
#define X(name, column, width, first, last) dut.name = masked(noise.next(), width);
        INPUTS(X)
#undef X
    }

    void cycle() {
        dut.clk = !dut.clk;
        dut.eval();
#ifndef EVERY_EDGE_IS_A_CYCLE
        dut.clk = 0;
        dut.eval();
#endif
    }

    VerilatedContext context;
    Vtop dut;
};

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void *chain_new() { return new Chain; }

EXPORT void chain_free(void *chain) { delete static_cast<Chain *>(chain); }

// `rows` cases of GIVEN columns in, as many results of SEEN columns out; the noise of case n is that of `seed` + n.
EXPORT void chain_run(void *chain, int64_t rows, const int64_t *given, int64_t *seen, uint64_t seed) {
    for (int64_t n = 0; n < rows; ++n) {
        Noise noise(seed + uint64_t(n));
        static_cast<Chain *>(chain)->evaluate(given + n * GIVEN, seen + n * SEEN, noise);
    }
}
