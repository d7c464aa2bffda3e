// The virtual board: a Verilated core, its pins, and nothing else.
//
// Python queues whole frames and byte strings, calls board_run() for a burst of clock cycles, and takes whole logs
// back; no call is made per cycle. All functions have C linkage and none throws.
//
// pins.h is generated from the port list of the design. It defines Model, Dut and, per pin group that the design
// has, BOARD_RX_PORTS / BOARD_TX_PORTS (X-macros over GMII ports), BOARD_HAS_LINK, BOARD_HAS_REG_LOG,
// BOARD_HAS_HOST_TX_LOG, BOARD_HAS_LINK_TX_LOG and BOARD_HAS_KILL.
//
// The model (see Design.board in verilate.py) has after an edge the outputs of the cycle whose inputs it had before it.
// One cycle c is: drive the inputs of c; clock edge; sample the outputs of c; the other edge, unless the model takes
// every edge for one of its own (BOARD_EVERY_EDGE). So all that combines inputs is evaluated once a cycle, and outputs
// that depend on inputs of the same cycle are seen exactly.

#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

#include "pins.h"

namespace {

constexpr unsigned CYCLE_NS = 8;
constexpr unsigned MIN_IFG = 12;         // byte times between two frames
constexpr size_t PREAMBLE_SIZE = 8;      // with the start-of-frame delimiter
constexpr size_t FCS_SIZE = 4;
constexpr size_t MIN_PAYLOAD = 60;       // shortest legal frame without FCS
constexpr uint8_t SFD = 0xD5, PREAMBLE = 0x55;
constexpr int64_t NEVER = INT64_MAX;

// Flags of an injected frame.
enum : uint32_t {
    IN_RAW = 1,            // the bytes carry their own FCS; no padding
    IN_BAD_FCS = 2,        // invert the lowest bit of the last byte on the wire
    IN_NO_PREAMBLE = 4,    // nothing is put before the bytes either
    IN_NO_PAD = 8,         // leave a short frame short, but give it a right FCS
};

// What is wrong with a captured frame; 0: nothing.
enum : uint32_t { OUT_PREAMBLE = 1, OUT_FCS = 2, OUT_SHORT = 4, OUT_LONG = 8, OUT_IFG = 16, OUT_TX_ER = 32 };

// Reasons to end a burst early.
enum : uint32_t { STOP_TX = 1, STOP_RX_IDLE = 2, STOP_LINK_OUT = 4 };

struct Injection {          // layout shared with Python
    int64_t start;          // earliest cycle of the first byte on the wire
    uint64_t offset;        // of the frame in the caller's blob
    uint32_t length;        // bytes in the blob
    uint32_t flags;
    int32_t keep;           // bytes on the wire, counted from the first preamble byte, before the carrier drops; < 0: all
    int32_t er_at;          // index on the wire, counted likewise, of the byte with rx_er; < 0: none
};

struct Capture {            // layout shared with Python
    int64_t start;          // cycle of the first preamble byte
    uint64_t offset;        // of the first byte after the delimiter, in the bytes of the log
    uint32_t length;        // with FCS
    uint32_t errors;
    uint32_t gap;           // idle cycles before it, saturating
    uint32_t unused;
};

struct RegisterWrite { int64_t cycle; uint32_t address; uint32_t data; };      // layout shared with Python
struct HostTx { int64_t cycle; uint32_t kind; uint32_t length; };             // layout shared with Python

constexpr uint32_t HOST_LINK = 2;       // kind: a frame of the host link; the others have no length

struct CrcTable {
    std::array<uint32_t, 256> of_byte;
    constexpr CrcTable() : of_byte() {
        for (uint32_t i = 0; i < 256; ++i) {
            uint32_t r = i;
            for (int bit = 0; bit < 8; ++bit) r = (r >> 1) ^ ((r & 1) ? 0xEDB88320u : 0);
            of_byte[i] = r;
        }
    }
};
constexpr CrcTable CRC;

uint32_t fcs(const uint8_t *data, size_t size) {
    uint32_t r = 0xFFFFFFFFu;
    for (size_t i = 0; i < size; ++i) r = CRC.of_byte[(r ^ data[i]) & 0xFF] ^ (r >> 8);
    return ~r;
}

struct RxPort {
    struct Frame { int64_t start; size_t offset, length; int64_t er_at; };
    std::vector<uint8_t> wire;
    std::vector<Frame> frames;
    std::vector<int64_t> starts;     // cycle of the first byte of every frame begun since reset
    size_t next = 0;                 // index of the frame under way or to come
    size_t position = 0;
    bool active = false;
    bool driven = true;              // the pins do not show idle
    int64_t due = NEVER;             // cycle in which the next frame begins
    int64_t free_at = 0;             // first cycle in which the gap allows a start
    unsigned ifg = MIN_IFG;

    void schedule() {
        if (next == frames.size()) {
            wire.clear();
            frames.clear();
            next = 0;
            due = NEVER;
        } else {
            due = frames[next].start > free_at ? frames[next].start : free_at;
        }
    }

    void push(const Injection &in, const uint8_t *data) {
        const size_t begin = wire.size();
        if (!(in.flags & IN_NO_PREAMBLE)) {
            wire.insert(wire.end(), PREAMBLE_SIZE - 1, PREAMBLE);
            wire.push_back(SFD);
        }
        const size_t body = wire.size();
        wire.insert(wire.end(), data, data + in.length);
        if (!(in.flags & IN_RAW)) {
            if (!(in.flags & IN_NO_PAD) && in.length < MIN_PAYLOAD) wire.resize(body + MIN_PAYLOAD, 0);
            const uint32_t check = fcs(&wire[body], wire.size() - body);
            for (unsigned i = 0; i < FCS_SIZE; ++i) wire.push_back(uint8_t(check >> (8 * i)));
        }
        if ((in.flags & IN_BAD_FCS) && wire.size() > begin) wire.back() ^= 1;
        if (in.keep >= 0 && size_t(in.keep) < wire.size() - begin) wire.resize(begin + in.keep);
        if (wire.size() == begin) return;      // a frame of no bytes never shows on the wire
        frames.push_back({in.start, begin, wire.size() - begin, in.er_at});
        if (due == NEVER && !active) schedule();
    }
};

struct TxPort {
    std::vector<Capture> log;
    std::vector<uint8_t> bytes;
    std::vector<uint8_t> current;
    bool active = false;
    bool er = false;
    int64_t start = 0;
    int64_t idle_from = -1;          // first idle cycle after the last frame; -1: there was none

    void finish() {
        uint32_t errors = er ? OUT_TX_ER : 0;
        size_t body = 0;
        while (body < current.size() && current[body] == PREAMBLE) ++body;
        if (body != PREAMBLE_SIZE - 1 || body >= current.size() || current[body] != SFD) errors |= OUT_PREAMBLE;
        if (body < current.size() && current[body] == SFD) ++body;
        const uint8_t *frame = current.data() + body;
        const size_t length = current.size() - body;
        if (length < FCS_SIZE) {
            errors |= OUT_FCS;
        } else {
            const uint32_t check = fcs(frame, length - FCS_SIZE);
            for (unsigned i = 0; i < FCS_SIZE; ++i)
                if (frame[length - FCS_SIZE + i] != uint8_t(check >> (8 * i))) errors |= OUT_FCS;
        }
        if (length < MIN_PAYLOAD + FCS_SIZE) errors |= OUT_SHORT;
        if (length > 1522) errors |= OUT_LONG;
        const int64_t gap = idle_from < 0 ? INT32_MAX : start - idle_from;
        if (gap < int64_t(MIN_IFG)) errors |= OUT_IFG;
        log.push_back({start, bytes.size(), uint32_t(length), errors, uint32_t(gap > INT32_MAX ? INT32_MAX : gap), 0});
        bytes.insert(bytes.end(), frame, frame + length);
        idle_from = start + int64_t(current.size());
        current.clear();
        active = er = false;
    }
};

struct Link {
    struct Segment { int64_t start; size_t end; };
    std::vector<uint8_t> in;
    std::deque<Segment> segments;
    size_t in_next = 0;
    int64_t in_due = NEVER;          // cycle from which the next byte is offered
    int64_t in_free = 0;
    uint64_t consumed = 0;           // bytes the core has taken since reset
    std::vector<uint8_t> out;
    uint64_t produced = 0;           // bytes the core has sent since reset
    int64_t out_free = 0;
    int64_t in_period = 1, out_period = 1;
    uint64_t out_room = UINT64_MAX;  // unread bytes at which the board stops taking more

    void schedule() {
        if (segments.empty()) {
            in.clear();
            in_next = 0;
            in_due = NEVER;
        } else {
            in_due = segments.front().start > in_free ? segments.front().start : in_free;
        }
    }
    void taken(int64_t cycle) {
        ++consumed;
        ++in_next;
        in_free = cycle + in_period;
        if (in_next == segments.front().end) segments.pop_front();
        schedule();
    }
};

}  // namespace

struct Board {
    VerilatedContext context;
    Model dut;
    RxPort rx[BOARD_PORTS];
    TxPort tx[BOARD_PORTS];
    Link link;
    std::vector<RegisterWrite> register_writes;
    std::vector<HostTx> host_tx;
    int64_t cycle = 0;
    uint8_t kill = 0;
    uint8_t feed_lost = 0;
#if VM_TRACE
    std::unique_ptr<VerilatedVcdC> trace;
    uint64_t trace_origin = 0;
    bool traced = false;             // ever
#endif

    Board() : dut(&context) {
#if VM_TRACE
        context.traceEverOn(true);
#endif
        dut.clk = 0;
        dut.rst = 1;
        dut.eval();
    }
    ~Board() { dut.final(); }

    template <bool TRACED> void rise() {
        dut.clk = !dut.clk;
        dut.eval();
#if VM_TRACE
        if (TRACED) trace->dump(trace_origin + uint64_t(cycle) * CYCLE_NS);
#endif
    }

    template <bool TRACED> void fall() {
#ifndef BOARD_EVERY_EDGE
        dut.clk = 0;
        dut.eval();
#endif
#if VM_TRACE
        if (TRACED) trace->dump(trace_origin + uint64_t(cycle) * CYCLE_NS + CYCLE_NS / 2);
#endif
    }

    void reset(int64_t cycles) {
        for (RxPort &port : rx) { const unsigned ifg = port.ifg; port = RxPort(); port.ifg = ifg; }
        for (TxPort &port : tx) port = TxPort();
        const Link old = link;
        link = Link();
        link.in_period = old.in_period;
        link.out_period = old.out_period;
        link.out_room = old.out_room;
        register_writes.clear();
        host_tx.clear();
        idle_pins();
        dut.rst = 1;
        for (const int64_t end = cycle + cycles; cycle < end; ++cycle) {
#if VM_TRACE
            if (trace) { rise<true>(); fall<true>(); continue; }
#endif
            rise<false>();
            fall<false>();
        }
        dut.rst = 0;
#if VM_TRACE
        // Waveforms do not run backwards when the cycle count starts anew; without any so far, times are cycles.
        if (traced) trace_origin += uint64_t(cycle) * CYCLE_NS;
#endif
        cycle = 0;
    }

    void idle_pins() {
#define X(index, name) \
        dut.name##_rxd = 0; dut.name##_rx_dv = 0; dut.name##_rx_er = 0;
        BOARD_RX_PORTS(X)
#undef X
#ifdef BOARD_HAS_LINK
        dut.link_rx_valid = 0;
        dut.link_rx_data = 0;
        dut.link_tx_ready = 0;
#endif
#ifdef BOARD_HAS_KILL
        dut.kill_pin = kill;
#endif
#ifdef BOARD_HAS_FEED_LOST
        dut.feed_lost = feed_lost;
#endif
    }

    template <bool TRACED> int64_t run(int64_t cycles, uint32_t stop) {
        const int64_t end = cycle + cycles, begin = cycle;
        bool stopping = false;
#ifdef BOARD_HAS_KILL
        dut.kill_pin = kill;
#endif
#ifdef BOARD_HAS_FEED_LOST
        dut.feed_lost = feed_lost;
#endif
        while (cycle < end && !stopping) {
#define X(index, name)                                                              \
            {                                                                       \
                RxPort &port = rx[index];                                           \
                if (!port.active && cycle >= port.due) {                            \
                    port.active = true;                                             \
                    port.position = 0;                                              \
                    port.due = NEVER;                                               \
                    port.starts.push_back(cycle);                                   \
                }                                                                   \
                if (port.active) {                                                  \
                    const RxPort::Frame &frame = port.frames[port.next];            \
                    dut.name##_rxd = port.wire[frame.offset + port.position];       \
                    dut.name##_rx_dv = 1;                                           \
                    dut.name##_rx_er = int64_t(port.position) == frame.er_at;       \
                    port.driven = true;                                             \
                    if (++port.position == frame.length) {                          \
                        port.active = false;                                        \
                        port.free_at = cycle + 1 + port.ifg;                        \
                        ++port.next;                                                \
                        port.schedule();                                            \
                        if ((stop & STOP_RX_IDLE) && rx_idle()) stopping = true;    \
                    }                                                               \
                } else if (port.driven) {                                           \
                    dut.name##_rxd = 0;                                             \
                    dut.name##_rx_dv = 0;                                           \
                    dut.name##_rx_er = 0;                                           \
                    port.driven = false;                                            \
                }                                                                   \
            }
            BOARD_RX_PORTS(X)
#undef X
#ifdef BOARD_HAS_LINK
            const bool offered = cycle >= link.in_due;
            dut.link_rx_valid = offered;
            if (offered) dut.link_rx_data = link.in[link.in_next];
            const bool accepting = cycle >= link.out_free && link.out.size() < link.out_room;
            dut.link_tx_ready = accepting;
#endif
            rise<TRACED>();
#define X(index, name)                                                              \
            {                                                                       \
                TxPort &port = tx[index];                                           \
                if (dut.name##_tx_en) {                                             \
                    if (!port.active) {                                             \
                        port.active = true;                                         \
                        port.start = cycle;                                         \
                    }                                                               \
                    port.current.push_back(dut.name##_txd);                         \
                    if (dut.name##_tx_er) port.er = true;                           \
                } else if (port.active) {                                           \
                    port.finish();                                                  \
                    if (stop & STOP_TX) stopping = true;                            \
                }                                                                   \
            }
            BOARD_TX_PORTS(X)
#undef X
#ifdef BOARD_HAS_LINK
            if (accepting && dut.link_tx_valid) {
                link.out.push_back(dut.link_tx_data);
                ++link.produced;
                link.out_free = cycle + link.out_period;
                if (stop & STOP_LINK_OUT) stopping = true;
            }
            if (offered && dut.link_rx_ready) link.taken(cycle);
#endif
#ifdef BOARD_HAS_REG_LOG
            if (dut.dbg_reg_we) register_writes.push_back({cycle, dut.dbg_reg_addr, dut.dbg_reg_data});
#endif
#ifdef BOARD_HAS_HOST_TX_LOG
            if (dut.dbg_host_tx_valid) host_tx.push_back({cycle, dut.dbg_host_tx_kind, 0});
#endif
#ifdef BOARD_HAS_LINK_TX_LOG
            if (dut.dbg_link_tx_valid) host_tx.push_back({cycle, HOST_LINK, dut.dbg_link_tx_length});
#endif
            fall<TRACED>();
            ++cycle;
        }
        return cycle - begin;
    }

    bool rx_idle() const {
        for (const RxPort &port : rx)
            if (port.active || port.next != port.frames.size()) return false;
        return true;
    }
};

#pragma GCC visibility push(default)
extern "C" {

unsigned board_abi() { return 1; }

Board *board_new() {
    try {
        return new Board();
    } catch (...) {
        return nullptr;
    }
}

void board_free(Board *board) { delete board; }

void board_reset(Board *board, int64_t cycles) { board->reset(cycles); }

int64_t board_run(Board *board, int64_t cycles, uint32_t stop) {
#if VM_TRACE
    if (board->trace) return board->run<true>(cycles, stop);
#endif
    return board->run<false>(cycles, stop);
}

int64_t board_cycle(const Board *board) { return board->cycle; }

void board_kill(Board *board, int level) { board->kill = level != 0; }

void board_feed_lost(Board *board, int level) { board->feed_lost = level != 0; }

void board_inject(Board *board, unsigned port, const Injection *frames, size_t count, const uint8_t *blob) {
    for (size_t i = 0; i < count; ++i) board->rx[port].push(frames[i], blob + frames[i].offset);
}

void board_set_ifg(Board *board, unsigned port, unsigned ifg) { board->rx[port].ifg = ifg; }

size_t board_rx_pending(const Board *board, unsigned port) {
    return board->rx[port].frames.size() - board->rx[port].next;
}

const int64_t *board_rx_starts(const Board *board, unsigned port, size_t *count) {
    *count = board->rx[port].starts.size();
    return board->rx[port].starts.data();
}

const Capture *board_tx(const Board *board, unsigned port, size_t *count, const uint8_t **bytes, size_t *size) {
    const TxPort &tx = board->tx[port];
    *count = tx.log.size();
    *bytes = tx.bytes.data();
    *size = tx.bytes.size();
    return tx.log.data();
}

void board_tx_clear(Board *board, unsigned port) {
    board->tx[port].log.clear();
    board->tx[port].bytes.clear();
}

void board_link_write(Board *board, const uint8_t *data, size_t size, int64_t start) {
    if (!size) return;
    Link &link = board->link;
    link.in.insert(link.in.end(), data, data + size);
    link.segments.push_back({start, link.in.size()});
    if (link.in_due == NEVER) link.schedule();
}

const uint8_t *board_link_read(const Board *board, size_t *size) {
    *size = board->link.out.size();
    return board->link.out.data();
}

void board_link_clear(Board *board) { board->link.out.clear(); }

void board_link_counts(const Board *board, uint64_t *consumed, uint64_t *produced, uint64_t *waiting) {
    *consumed = board->link.consumed;
    *produced = board->link.produced;
    *waiting = board->link.in.size() - board->link.in_next;
}

void board_link_pace(Board *board, int64_t in_period, int64_t out_period, uint64_t out_room) {
    board->link.in_period = in_period;
    board->link.out_period = out_period;
    board->link.out_room = out_room;
}

const RegisterWrite *board_register_writes(const Board *board, size_t *count) {
    *count = board->register_writes.size();
    return board->register_writes.data();
}

void board_register_writes_clear(Board *board) { board->register_writes.clear(); }

const HostTx *board_host_tx(const Board *board, size_t *count) {
    *count = board->host_tx.size();
    return board->host_tx.data();
}

void board_host_tx_clear(Board *board) { board->host_tx.clear(); }

// 0: done; 1: this build cannot trace; 2: the file cannot be written.
int board_trace_open(Board *board, const char *path) {
#if VM_TRACE
    board->trace = std::make_unique<VerilatedVcdC>();
    board->dut.trace(board->trace.get(), 99);
    board->trace->set_time_unit("1ns");
    board->trace->set_time_resolution("1ns");
    board->trace->open(path);
    if (board->trace->isOpen()) {
        board->traced = true;
        return 0;
    }
    board->trace.reset();
    return 2;
#else
    (void)board;
    (void)path;
    return 1;
#endif
}

void board_trace_close(Board *board) {
#if VM_TRACE
    if (board->trace) board->trace->close();
    board->trace.reset();
#else
    (void)board;
#endif
}

}  // extern "C"
#pragma GCC visibility pop
