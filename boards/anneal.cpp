// A placed ECP5 design, improved by simulated annealing: anneal DESIGN RESULT.
//
// boards/anneal.py writes DESIGN, compiles and runs this, and reads RESULT; the format is documented there. A line about
// each round goes to standard output. Exit codes: 0 done, 1 DESIGN cannot be used (why is on standard error).
//
// What moves is a cluster: cells that have to keep their places to one another (a carry chain, a LUT and the register
// behind it). Wherever one goes, what stood there takes its place. A move is weighed by what it does to
//
//  - wires: half the perimeter of the box around each net, times what a wire costs there. The cost of a place rises
//    with the wires that are expected to pass it beyond what it can carry (as in negotiated routing), so that the
//    design spreads where wires are short of room, and nowhere else;
//  - time: the delay of each connection, weighted by how much depends on it, and at a high price beyond what the ways
//    through it can bear.
//
// Only additions, multiplications, divisions and comparisons of doubles are used, and an own random generator: the same
// design gives the same result with every compiler and C library.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

// ------------------------------------------------------------------ the design

enum Kind { COMB, FF, RAMW, FIXED, FIRST_BLOCK };   // blocks of a kind exchange their sites
enum Flag { CARRY = 1, LUTRAM = 2, MUX5 = 4, MUX6 = 8, DEEP_MUX6 = 16, RAMW_BLOCK = 32, USES_M = 64 };

// Sites of a tile: LUT and register of each of eight cells, and the write port of the LUT memory, which takes up the
// third slice.
constexpr int CELLS = 8, RAMW_SITE = 2 * CELLS, SITES = RAMW_SITE + 1, RAMW_SLICE = 2;

struct Cell {
    int kind, x, y, site;           // site: within the tile; of a block its number
    int flags, tile_set, slice_set; // registers of a tile share clock and reset, those of a slice the enable
    int cluster;                    // or -1
};

struct Pin {
    int cell, net;
    bool drives;
    bool direct;        // by a wire of its own, which needs neither room nor time
    float start, end;   // ns from the clock to here, or from here to the clock; -1 where no way starts or ends
    int domain;
};

struct Way {
    int pin;
    float delay;
};

struct Net {
    std::vector<int> pins;      // without direct ones
    int driver = -1;
    double weight = 0;          // wires that a net of so many pins takes, in boxes' half perimeters
};

// Ends of a box and how many pins stand at each.
struct Box {
    int x0, x1, y0, y1, at_x0, at_x1, at_y0, at_y1;
    int span() const { return x1 - x0 + y1 - y0; }
    int area() const { return (x1 - x0 + 1) * (y1 - y0 + 1); }
};

int width, height;
double goal_ns, near_ns, step_ns, same_ns;  // of wires: to another tile, for each tile of way, within a tile
double room, wires_a_pin;                   // wires that a place carries well, and those that each pin there takes
uint64_t random_state;
std::vector<Cell> cells;
std::vector<Pin> pins;
std::vector<Net> nets;
std::vector<std::vector<int>> clusters, cell_pins;
std::vector<std::vector<Way>> ways_from, ways_to;   // by pin: through the cell
std::vector<int> columns, column_of, row_of;        // of tiles with logic; -1: none
std::vector<int> at;                                // (tile, site) to cell, or -1

[[noreturn]] void refuse(const std::string &why) {
    fprintf(stderr, "%s\n", why.c_str());
    exit(1);
}

int tile_of(int x, int y) { return row_of[y] * int(columns.size()) + column_of[x]; }
int place_of(int x, int y, int site) { return tile_of(x, y) * SITES + site; }
bool is_logic(int x, int y) {
    return x >= 0 && y >= 0 && x < width && y < height && column_of[x] >= 0 && row_of[y] >= 0;
}

// ------------------------------------------------------------------ chance

uint64_t random_word() {    // xorshift64*
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 2685821657736338717ull;
}
int random_below(int n) { return int((random_word() >> 32) * uint64_t(n) >> 32); }
int random_around(int range) { return random_below(2 * range + 1) - range; }
bool happens(double minus_log) {    // with probability exp(-minus_log)
    if (minus_log > 40)
        return false;
    double chance = 1 - minus_log / 4096;
    for (int n = 0; n < 12; n++)
        chance *= chance;
    return (random_word() >> 11) * (1.0 / 9007199254740992.0) < chance;
}

// ------------------------------------------------------------------ time

std::vector<float> wire_ns, importance; // of pins that are driven
std::vector<float> bearable;            // ns at which the longest way through the pin would just be in time
double beyond;                          // price of time beyond that, the most important connection's being 1

// What the time to a pin costs. Without a bound on each connection one that does not matter could be drawn out, in a
// single move, until it matters most.
double time_price(int p, float ns) {
    return importance[p] * double(ns) + beyond * std::max(0.0, double(ns) - bearable[p]);
}
std::vector<int> order;                 // pins, each behind all that it depends on
int domains;

float wire_between(const Cell &from, const Cell &to) {
    const int d = abs(from.x - to.x) + abs(from.y - to.y);
    return float(d ? near_ns + step_ns * d : same_ns);
}

std::vector<std::vector<int>> sinks;    // by net, direct ones included

void find_order() {
    std::vector<int> waits(pins.size(), 0);
    for (size_t p = 0; p < pins.size(); p++) {
        waits[p] = pins[p].drives ? int(ways_to[p].size()) : nets[pins[p].net].driver >= 0;
        if (!waits[p])
            order.push_back(int(p));
    }
    for (size_t n = 0; n < order.size(); n++) {     // a loop through logic never gets its turn, and counts for nothing
        const int p = order[n];
        if (pins[p].drives) {
            for (int sink : sinks[pins[p].net])
                if (!--waits[sink])
                    order.push_back(sink);
        } else {
            for (const Way &way : ways_from[p])
                if (!--waits[way.pin])
                    order.push_back(way.pin);
        }
    }
    printf("%zu pins, %zu of them in loops\n", pins.size(), pins.size() - order.size());
}

// Longest way between registers, in ns. Sets the importance of every connection by the longest way through it, in parts
// of the longest of all or of the goal: mostly a high power of it, and a lower one, so that no cell is free to go
// anywhere as long as it does not matter. And sets what it can bear.
double time_ways(int sharpness) {
    constexpr float NEVER = 1e9f;
    std::vector<float> arrives(pins.size()), needed(pins.size());
    double worst_of_all = 0;
    std::fill(importance.begin(), importance.end(), 0.0f);
    std::fill(bearable.begin(), bearable.end(), NEVER);
    for (int domain = 0; domain < domains; domain++) {
        double worst = 0;
        std::fill(arrives.begin(), arrives.end(), -1.0f);
        for (int p : order) {
            const Pin &pin = pins[p];
            if (pin.drives) {
                arrives[p] = pin.domain == domain ? pin.start : -1;
                for (const Way &way : ways_to[p])
                    if (arrives[way.pin] >= 0)
                        arrives[p] = std::max(arrives[p], arrives[way.pin] + way.delay);
            } else if (const int driver = nets[pin.net].driver; driver >= 0 && arrives[driver] >= 0) {
                arrives[p] = arrives[driver] + wire_ns[p];
                if (pin.end >= 0 && pin.domain == domain)
                    worst = std::max(worst, double(arrives[p]) + pin.end);
            }
        }
        const float limit = float(std::max(worst, goal_ns));
        worst_of_all = std::max(worst_of_all, worst);
        for (size_t n = order.size(); n--;) {
            const int p = order[n];
            const Pin &pin = pins[p];
            float by = NEVER;
            if (pin.drives) {
                for (int sink : sinks[pin.net])
                    by = std::min(by, needed[sink] - wire_ns[sink]);
            } else {
                if (pin.end >= 0 && pin.domain == domain)
                    by = limit - pin.end;
                for (const Way &way : ways_from[p])
                    by = std::min(by, needed[way.pin] - way.delay);
            }
            needed[p] = by;
            if (pin.drives || pin.direct || arrives[p] < 0 || by > NEVER / 2)
                continue;
            bearable[p] = std::min(bearable[p], float(wire_ns[p] + by - arrives[p] - limit + goal_ns));
            const double ratio = std::min(1.0, std::max(0.0, 1.0 - double(by - arrives[p]) / limit));
            constexpr int MILD = 6;
            double value = 1, mild = 1;
            for (int k = 0; k < sharpness; k++) {
                value *= ratio;
                if (k == MILD - 1)
                    mild = value;
            }
            importance[p] = std::max(importance[p], float(0.8 * value + 0.2 * mild));
        }
    }
    return worst_of_all;
}

// ------------------------------------------------------------------ wires

// Wires of a net by its pins (C. Cheng, RISA, 1994), in half perimeters of its box.
double wires_of(int count) {
    static const double TABLE[] = {0, 0, 1, 1, 1.08, 1.15, 1.22, 1.28, 1.34, 1.40, 1.45, 1.50, 1.55, 1.59, 1.64, 1.69};
    constexpr int KNOWN = sizeof TABLE / sizeof *TABLE;
    return count < KNOWN ? TABLE[count] : count <= 50 ? 1.69 + 0.0315 * (count - 15) : 2.79 + 0.0262 * (count - 50);
}

std::vector<Box> boxes;
std::vector<double> prices;         // sums of the prices of all places above and to the left
std::vector<double> over_before;    // what each place has been short of so far

Box box_of(const Net &net) {
    Box box{1 << 20, -1, 1 << 20, -1, 0, 0, 0, 0};
    for (int p : net.pins) {
        const Cell &cell = cells[pins[p].cell];
        if (cell.x < box.x0) box.x0 = cell.x, box.at_x0 = 0;
        if (cell.x > box.x1) box.x1 = cell.x, box.at_x1 = 0;
        if (cell.y < box.y0) box.y0 = cell.y, box.at_y0 = 0;
        if (cell.y > box.y1) box.y1 = cell.y, box.at_y1 = 0;
        box.at_x0 += cell.x == box.x0;
        box.at_x1 += cell.x == box.x1;
        box.at_y0 += cell.y == box.y0;
        box.at_y1 += cell.y == box.y1;
    }
    return box;
}

double cost_of(const Net &net, const Box &box) {
    if (!box.span())
        return 0;
    const double *low = &prices[box.y0 * (width + 1)], *high = &prices[(box.y1 + 1) * (width + 1)];
    return net.weight * box.span() * (high[box.x1 + 1] - high[box.x0] - low[box.x1 + 1] + low[box.x0]) / box.area();
}

struct Demand {
    double most, over;  // wires at the place with most, and beyond the room in all
};

// How many wires each place has to expect, and what it costs from now on: 1, more by `steep` for every time that the
// demand exceeds the room, and by what it has exceeded it before.
Demand set_prices(double steep, double learned) {
    std::vector<double> demand((width + 1) * (height + 1), 0);  // differences first
    const auto cell = [&](int x, int y) -> double & { return demand[y * (width + 1) + x]; };
    for (size_t n = 0; n < nets.size(); n++) {
        const Box &box = boxes[n];
        if (nets[n].weight == 0)
            continue;
        const double each = nets[n].weight * box.span() / box.area();
        cell(box.x0, box.y0) += each;
        cell(box.x1 + 1, box.y0) -= each;
        cell(box.x0, box.y1 + 1) -= each;
        cell(box.x1 + 1, box.y1 + 1) += each;
    }
    for (int y = 0; y < height; y++)
        for (int x = 1; x < width; x++)
            cell(x, y) += cell(x - 1, y);
    for (int y = 1; y < height; y++)
        for (int x = 0; x < width; x++)
            cell(x, y) += cell(x, y - 1);
    for (const Net &net : nets)
        for (int p : net.pins)
            cell(cells[pins[p].cell].x, cells[pins[p].cell].y) += wires_a_pin;
    Demand found{0, 0};
    prices.assign((width + 1) * (height + 1), 0);
    for (int y = 0; y < height; y++) {
        double row = 0;
        for (int x = 0; x < width; x++) {
            double sum = 0;     // of the places around, since a wire need not take the very one
            int count = 0;
            for (int j = std::max(0, y - 1); j <= std::min(height - 1, y + 1); j++)
                for (int i = std::max(0, x - 1); i <= std::min(width - 1, x + 1); i++, count++)
                    sum += cell(i, j);
            const double here = sum / count, over = std::max(0.0, here / room - 1);
            double &before = over_before[y * width + x];
            before += learned * over;
            found.most = std::max(found.most, here);
            found.over += over * room;
            row += 1 + steep * over + before;
            prices[(y + 1) * (width + 1) + x + 1] = row + prices[y * (width + 1) + x + 1];
        }
    }
    return found;
}

// ------------------------------------------------------------------ what a tile allows

bool is_legal(int tile) {
    const int *its = &at[tile * SITES];
    int tile_set = -1;
    for (int slice = 0; slice < CELLS / 2; slice++) {
        const bool written = slice == RAMW_SLICE && its[RAMW_SITE] >= 0;
        int slice_set = -1, carry = -1;
        for (int half = 0; half < 2; half++) {
            const int lut = its[2 * (2 * slice + half)], ff = its[2 * (2 * slice + half) + 1];
            bool m_taken = false;
            if (lut >= 0) {
                const int flags = cells[lut].flags;
                m_taken = flags & (MUX5 | MUX6);
                if ((written && !(flags & RAMW_BLOCK)) || ((flags & MUX5) && half != 0) || ((flags & MUX6) && half != 1)
                    || ((flags & DEEP_MUX6) && slice % 2) || ((flags & LUTRAM) && slice > 1)
                    || (carry >= 0 && carry != (flags & CARRY)))
                    return false;
                carry = flags & CARRY;
            }
            if (ff >= 0) {
                const Cell &cell = cells[ff];
                if ((m_taken && (cell.flags & USES_M)) || (slice_set >= 0 && slice_set != cell.slice_set)
                    || (tile_set >= 0 && tile_set != cell.tile_set))
                    return false;
                slice_set = cell.slice_set;
                tile_set = cell.tile_set;
            }
        }
    }
    return true;
}

void check_tiles() {
    for (int tile = 0; tile < int(at.size()) / SITES; tile++)
        if (!is_legal(tile))
            refuse("the tile in column " + std::to_string(columns[tile % columns.size()]) + " and row number "
                   + std::to_string(tile / columns.size()) + " of logic has cells that cannot stand together");
}

// Whether a lone LUT, register or pair of both has a chance to stand there: quick, and not all that has to be true.
bool may_fit(const std::vector<int> &cluster, int tile, int lc) {
    const int *its = &at[tile * SITES];
    for (int c : cluster) {
        const Cell &cell = cells[c];
        const int is_ff = cell.kind == FF, there = its[2 * lc + is_ff], beside = its[2 * (lc ^ 1) + is_ff];
        if (there >= 0 && clusters[cells[there].cluster].size() > 2)
            return false;
        if (!is_ff) {
            if ((beside >= 0 && (cells[beside].flags & CARRY)) || (its[RAMW_SITE] >= 0 && lc / 2 == RAMW_SLICE))
                return false;
            continue;
        }
        if (beside >= 0 && cells[beside].slice_set != cell.slice_set)
            return false;
        for (int k = 0; k < CELLS; k++) {
            const int other = its[2 * k + 1];
            if (other < 0 || k == lc || other == c)
                continue;
            if (cells[other].tile_set != cell.tile_set)
                return false;
            break;      // the others are like this one
        }
    }
    return true;
}

// ------------------------------------------------------------------ moves

struct Move {
    int cluster, dx, dy, ds;    // ds: in sites
};

std::vector<Move> moves;
std::vector<int> changed_nets, changed_pins, changed_tiles;
std::vector<Box> new_boxes;
std::vector<float> new_wire_ns;
std::vector<char> box_lost;     // it has to be found anew
// Of each: the number of the last trial that touched it.
std::vector<int> cluster_seen, net_seen, pin_seen, tile_seen;
int trial;
double wire_cost, time_cost;

bool goes(const Cell &cell, int x, int y, int site) {
    return is_logic(x, y) && (cell.kind == RAMW ? site == RAMW_SITE : site >= 0 && site < RAMW_SITE);
}

// Plan to move clusters; what stands in the way goes where they come from. False: it cannot.
bool plan(const std::vector<int> &set, int dx, int dy, int ds) {
    constexpr size_t MOST = 64;
    moves.clear();
    trial++;
    for (int cluster : set) {
        cluster_seen[cluster] = trial;
        moves.push_back({cluster, dx, dy, ds});
    }
    const size_t own = moves.size();
    const auto leaves = [&](int x, int y, int site) {   // a cell of the set stands there
        if (!is_logic(x, y) || site < 0 || site >= SITES)
            return false;
        const int cell = at[place_of(x, y, site)];
        if (cell < 0)
            return false;
        for (size_t n = 0; n < own; n++)
            if (moves[n].cluster == cells[cell].cluster)
                return true;
        return false;
    };
    for (size_t n = 0; n < own; n++)
        for (int c : clusters[moves[n].cluster]) {
            const Cell &cell = cells[c];
            const int x = cell.x + dx, y = cell.y + dy, site = cell.site + ds;
            if (!goes(cell, x, y, site))
                return false;
            const int there = at[place_of(x, y, site)];
            if (there < 0 || cluster_seen[cells[there].cluster] == trial)
                continue;
            int times = 1;      // a set that overlaps its own target leaves free what lies behind it
            while (leaves(x - (times + 1) * dx, y - (times + 1) * dy, site - (times + 1) * ds))
                if (++times > 8)
                    return false;
            cluster_seen[cells[there].cluster] = trial;
            moves.push_back({cells[there].cluster, -times * dx, -times * dy, -times * ds});
            if (moves.size() > MOST)
                return false;
        }
    return true;
}

void lift(const Move &move) {
    for (int c : clusters[move.cluster])
        at[place_of(cells[c].x, cells[c].y, cells[c].site)] = -1;
}

void shift(const Move &move, int sign) {
    for (int c : clusters[move.cluster]) {
        cells[c].x += sign * move.dx;
        cells[c].y += sign * move.dy;
        cells[c].site += sign * move.ds;
    }
}

// Put down on free places; false, and nothing put down, if one is taken or none.
bool put(const Move &move) {
    const auto &its = clusters[move.cluster];
    for (size_t n = 0; n < its.size(); n++) {
        const Cell &cell = cells[its[n]];
        if (!goes(cell, cell.x, cell.y, cell.site) || at[place_of(cell.x, cell.y, cell.site)] >= 0) {
            for (size_t k = 0; k < n; k++)
                at[place_of(cells[its[k]].x, cells[its[k]].y, cells[its[k]].site)] = -1;
            return false;
        }
        at[place_of(cell.x, cell.y, cell.site)] = its[n];
    }
    return true;
}

void undo() {
    for (const Move &move : moves)
        lift(move);
    for (const Move &move : moves) {
        shift(move, -1);
        put(move);
    }
}

// Do what was planned; false, and nothing done, if it is not legal.
bool perform() {
    changed_tiles.clear();
    const auto touch = [](const Move &move) {
        for (int c : clusters[move.cluster])
            if (const int tile = tile_of(cells[c].x, cells[c].y); tile_seen[tile] != trial) {
                tile_seen[tile] = trial;
                changed_tiles.push_back(tile);
            }
    };
    for (const Move &move : moves) {
        touch(move);
        lift(move);
    }
    for (const Move &move : moves)
        shift(move, 1);
    size_t down = 0;
    while (down < moves.size() && put(moves[down]))
        touch(moves[down++]);
    if (down == moves.size() && std::all_of(changed_tiles.begin(), changed_tiles.end(), is_legal))
        return true;
    for (size_t n = 0; n < down; n++)
        lift(moves[n]);
    for (const Move &move : moves)
        shift(move, -1);
    for (const Move &move : moves)
        put(move);
    return false;
}

// A pin at one end of a box or the other, or between them, goes from `was` to `is`; false: the end has to be searched.
bool slide(int &low, int &at_low, int &high, int &at_high, int was, int is) {
    if (is == was)
        return true;
    if (is < was) {
        if (was == high && !--at_high)
            return false;
        if (is < low) low = is, at_low = 0;
        at_low += is == low;
    } else {
        if (was == low && !--at_low)
            return false;
        if (is > high) high = is, at_high = 0;
        at_high += is == high;
    }
    return true;
}

struct Change {
    double wires, time;
};

// What the moves, which are done, change.
Change weigh() {
    changed_nets.clear();
    changed_pins.clear();
    Change change{0, 0};
    const auto time = [&](int p, const Cell &from, const Cell &to) {
        if (pin_seen[p] == trial || pins[p].direct)
            return;
        pin_seen[p] = trial;
        const float ns = wire_between(from, to);
        if (ns != wire_ns[p]) {
            new_wire_ns[p] = ns;
            changed_pins.push_back(p);
            change.time += time_price(p, ns) - time_price(p, wire_ns[p]);
        }
    };
    for (const Move &move : moves) {
        if (!move.dx && !move.dy)
            continue;
        for (int c : clusters[move.cluster]) {
            const Cell &cell = cells[c];
            for (int p : cell_pins[c]) {
                const int n = pins[p].net;
                if (net_seen[n] != trial) {
                    net_seen[n] = trial;
                    changed_nets.push_back(n);
                    new_boxes[n] = boxes[n];
                    box_lost[n] = nets[n].pins.size() < 5;
                }
                Box &box = new_boxes[n];
                box_lost[n] = box_lost[n]
                    || !slide(box.x0, box.at_x0, box.x1, box.at_x1, cell.x - move.dx, cell.x)
                    || !slide(box.y0, box.at_y0, box.y1, box.at_y1, cell.y - move.dy, cell.y);
                if (pins[p].drives) {
                    for (int sink : nets[n].pins)
                        if (sink != p)
                            time(sink, cell, cells[pins[sink].cell]);
                } else if (nets[n].driver >= 0) {
                    time(p, cells[pins[nets[n].driver].cell], cell);
                }
            }
        }
    }
    for (int n : changed_nets) {
        if (box_lost[n])
            new_boxes[n] = box_of(nets[n]);
        change.wires += cost_of(nets[n], new_boxes[n]) - cost_of(nets[n], boxes[n]);
    }
    return change;
}

void keep(const Change &change) {
    for (int n : changed_nets)
        boxes[n] = new_boxes[n];
    for (int p : changed_pins)
        wire_ns[p] = new_wire_ns[p];
    wire_cost += change.wires;
    time_cost += change.time;
}

// All costs from the start; returns half perimeters in all.
double recount() {
    double spans = 0;
    wire_cost = time_cost = 0;
    for (size_t n = 0; n < nets.size(); n++) {
        if (nets[n].weight == 0)
            continue;
        boxes[n] = box_of(nets[n]);
        spans += boxes[n].span();
        wire_cost += cost_of(nets[n], boxes[n]);
    }
    for (size_t p = 0; p < pins.size(); p++) {
        if (pins[p].drives || pins[p].direct || nets[pins[p].net].driver < 0)
            continue;
        wire_ns[p] = wire_between(cells[pins[nets[pins[p].net].driver].cell], cells[pins[p].cell]);
        time_cost += time_price(p, wire_ns[p]);
    }
    return spans;
}

// ------------------------------------------------------------------ annealing

std::vector<std::vector<int>> blocks;   // of a kind each: these exchange their sites
std::vector<int> large;                 // clusters of more than two cells
std::vector<int> chosen;

// All clusters with a cell in these sites of a tile; false if one also has cells elsewhere.
bool choose_sites(int x, int y, int first, int last) {
    chosen.clear();
    for (int site = first; site < last; site++) {
        const int there = at[place_of(x, y, site)];
        if (there < 0 || std::find(chosen.begin(), chosen.end(), cells[there].cluster) != chosen.end())
            continue;
        for (int c : clusters[cells[there].cluster])
            if (cells[c].x != x || cells[c].y != y || cells[c].site < first || cells[c].site >= last)
                return false;
        chosen.push_back(cells[there].cluster);
    }
    return true;
}

// Two blocks of a kind change places, in a plan.
bool plan_blocks(int range) {
    size_t count = 0;
    for (const auto &kind : blocks)
        count += kind.size();
    int n = random_below(int(count)), k = 0;
    while (n >= int(blocks[k].size()))
        n -= int(blocks[k++].size());
    const int one = blocks[k][n], other = blocks[k][random_below(int(blocks[k].size()))];
    const Cell &a = cells[one], &b = cells[other];
    if (one == other || abs(a.x - b.x) > std::max(range, 12))
        return false;
    trial++;
    moves.assign({{a.cluster, b.x - a.x, b.y - a.y, b.site - a.site}, {b.cluster, a.x - b.x, a.y - b.y, a.site - b.site}});
    for (const Move &move : moves)
        shift(move, 1);
    return true;
}

// Somewhere within the range, or (a quarter) near the middle of one of the cell's nets.
bool choose_target(int c, int range, int &x, int &y) {
    const Cell &cell = cells[c];
    x = cell.x;
    y = cell.y;
    if (random_below(4) || cell_pins[c].empty()) {
        x += random_around(range);
        y += random_around(range);
    } else if (const int n = pins[cell_pins[c][random_below(int(cell_pins[c].size()))]].net; nets[n].weight > 0) {
        const Box &box = boxes[n];
        x = std::clamp((box.x0 + box.x1) / 2, x - range, x + range) + random_around(1);
        y = std::clamp((box.y0 + box.y1) / 2, y - range, y + range) + random_around(1);
    }
    if (x < 0 || y < 0 || x >= width || y >= height || column_of[x] < 0)
        return false;
    if (row_of[y] < 0)      // a row of blocks: the next one
        y += y < cell.y ? -1 : 1;
    return is_logic(x, y);
}

// Choose a move of logic at random, and plan it.
bool plan_logic(int range) {
    const int cluster = !large.empty() && random_below(100) < 8 ? large[random_below(int(large.size()))]
                                                                : random_below(int(clusters.size()));
    const auto &its = clusters[cluster];
    const Cell &first = cells[its[0]];
    if (first.kind >= FIXED)
        return false;
    int x, y, ds = 0;
    if (!choose_target(its[0], range, x, y))
        return false;
    const int what = random_below(100);
    if (what >= 96) {               // the whole tile
        if (!choose_sites(first.x, first.y, 0, SITES))
            return false;
    } else if (what >= 86) {        // the slice
        if (first.site == RAMW_SITE || !choose_sites(first.x, first.y, first.site / 4 * 4, first.site / 4 * 4 + 4))
            return false;
        ds = (random_below(4) - first.site / 4) * 4;
    } else {
        chosen.assign(1, cluster);
        const auto in_tile = [&](int c) { return cells[c].x == first.x && cells[c].y == first.y; };
        const auto in_cell = [&](int c) { return in_tile(c) && cells[c].site / 2 == first.site / 2; };
        if (first.kind != RAMW && std::all_of(its.begin(), its.end(), in_cell)) {
            int lc = random_below(CELLS), tries = 0;
            while (!may_fit(its, tile_of(x, y), lc)) {
                if (++tries == 8)
                    return false;
                lc = random_below(CELLS);
                if (tries > 2) {
                    x = first.x + random_around(range);
                    y = first.y + random_around(range);
                    if (!is_logic(x, y))
                        x = first.x, y = first.y;
                }
            }
            ds = 2 * lc - first.site / 2 * 2;
        } else if (std::all_of(its.begin(), its.end(), [&](int c) {
                       return in_tile(c) && cells[c].kind != RAMW && !(cells[c].flags & CARRY); })) {
            ds = 4 * (random_below(7) - 3);
        }
    }
    const int dx = x - first.x, dy = y - first.y;
    return (dx || dy || ds) && plan(chosen, dx, dy, ds) && perform();
}

struct Schedule {
    double hot, cool;           // first temperature, in what a cluster costs on average, and its decay a round
    double time_share;          // of the cost
    double steep, learned;      // prices, as in set_prices()
    int trials;                 // a cluster and round
    int sharp, sharpest;        // as in time_ways(), at first and at last
};

bool differ(double a, double b) { return std::abs(a - b) > 1e-6 * (1 + std::abs(b)); }

void anneal(const Schedule &schedule) {
    constexpr int LEAST_RANGE = 3, PARTS = 4;     // of a round, each with a new look at time
    constexpr double END = 0.01;        // share of trials accepted at which only improvements count any more
    constexpr double COLD = 20, FROZEN = 1000;  // parts of the first temperature: from where on the best is kept; the last
    std::vector<Cell> best;
    double best_ns = 1e9;
    double range = 0.2 * std::max(width, height), temperature = schedule.hot;
    const long trials = long(schedule.trials) * long(clusters.size()) / PARTS;
    size_t block_count = 0;
    for (const auto &kind : blocks)
        block_count += kind.size();
    recount();
    time_ways(schedule.sharp);
    set_prices(schedule.steep, 0);
    for (int round = 0;; round++) {
        const int reach = int(range + 0.5), sharpness = std::min(schedule.sharpest, schedule.sharp + round);
        long tried = 0, accepted = 0;
        double worst = 0, spans = 0;
        for (int part = 0; part < PARTS; part++) {
            recount();
            const double scale = double(clusters.size());
            const double wire_weight = (1 - schedule.time_share) / wire_cost * scale;
            const double time_weight = time_cost > 0 ? schedule.time_share / time_cost * scale : 0;
            for (long n = 0; n < trials; n++) {
                const bool of_blocks = block_count > 1 && random_below(1000) < 8;
                if (!(of_blocks ? plan_blocks(reach) : plan_logic(reach)))
                    continue;
                const Change change = weigh();
                const double worse = wire_weight * change.wires + time_weight * change.time;
                const bool taken = worse <= 0 || (temperature > 0 && happens(worse / temperature));
                if (worse != 0 && !of_blocks)
                    tried++, accepted += taken;
                if (taken)
                    keep(change);
                else if (of_blocks)
                    for (const Move &move : moves)
                        shift(move, -1);
                else
                    undo();
            }
            const double wires_kept = wire_cost, time_kept = time_cost;
            spans = recount();
            if (differ(wires_kept, wire_cost) || differ(time_kept, time_cost))
                refuse("internal error: the costs do not add up");
            worst = time_ways(sharpness);
        }
        const double rate = tried ? double(accepted) / tried : 0;
        const Demand demand = set_prices(schedule.steep, temperature < schedule.hot / 5 ? schedule.learned : 0);
        printf("round %d temperature %.4f accepted %.3f wires %.0f most %.0f over %.0f way %.2f\n", round, temperature,
               rate, spans, demand.most, demand.over, worst);
        fflush(stdout);
        if (temperature <= schedule.hot / COLD && std::max(worst, goal_ns) <= best_ns) {
            best_ns = std::max(worst, goal_ns);
            best = cells;
        }
        if (temperature == 0)
            break;
        range = std::clamp(range * (1 - 0.44 + rate), double(LEAST_RANGE), double(std::max(width, height)));
        temperature *= rate > 0.8 ? 0.7 : rate > 0.44 ? 0.9 : rate > 0.06 ? schedule.cool : 0.8;
        if (rate < END || temperature < schedule.hot / FROZEN)
            temperature = 0;
    }
    for (const Cell &cell : cells)
        if (cell.kind < FIXED)
            at[place_of(cell.x, cell.y, cell.site)] = -1;
    cells = best;
    for (size_t n = 0; n < cells.size(); n++)
        if (cells[n].kind < FIXED)
            at[place_of(cells[n].x, cells[n].y, cells[n].site)] = int(n);
    printf("kept: way %.2f or less\n", best_ns);
}

// ------------------------------------------------------------------ files

FILE *input;

double number() {
    double value;
    if (fscanf(input, "%lf", &value) != 1)
        refuse("the design ends too soon, or has something else where a number belongs");
    return value;
}
int whole() { return int(number()); }

Schedule read(const char *name) {
    if (!(input = fopen(name, "r")))
        refuse(std::string("cannot read ") + name);
    width = whole(), height = whole();
    const int cell_count = whole(), pin_count = whole(), net_count = whole(), way_count = whole();
    const int cluster_count = whole(), column_count = whole(), row_count = whole();
    goal_ns = number(), same_ns = number(), near_ns = number(), step_ns = number();
    room = number(), wires_a_pin = number();
    random_state = uint64_t(whole()) * 2654435769u + 88172645463325252ull;
    Schedule schedule;
    schedule.hot = number(), schedule.cool = number(), schedule.time_share = number(), beyond = number();
    schedule.steep = number(), schedule.learned = number(), schedule.trials = whole();
    schedule.sharp = whole(), schedule.sharpest = whole();

    column_of.assign(width, -1);
    row_of.assign(height, -1);
    for (int n = 0; n < column_count; n++) {
        columns.push_back(whole());
        column_of.at(columns.back()) = n;
    }
    for (int n = 0; n < row_count; n++)
        row_of.at(whole()) = n;
    at.assign(column_count * row_count * SITES, -1);
    clusters.resize(cluster_count);
    for (int n = 0; n < cell_count; n++) {
        Cell cell;
        cell.kind = whole(), cell.x = whole(), cell.y = whole(), cell.site = whole(), cell.flags = whole();
        cell.tile_set = whole(), cell.slice_set = whole(), cell.cluster = whole();
        if (cell.kind < FIXED) {
            if (!goes(cell, cell.x, cell.y, cell.site) || at[place_of(cell.x, cell.y, cell.site)] >= 0)
                refuse("cell " + std::to_string(n) + " stands where another one does, or where none can");
            at[place_of(cell.x, cell.y, cell.site)] = n;
        } else if (cell.kind >= FIRST_BLOCK) {
            const int kind = cell.kind - FIRST_BLOCK;
            if (int(blocks.size()) <= kind)
                blocks.resize(kind + 1);
            blocks[kind].push_back(n);
        }
        if (cell.cluster >= 0)
            clusters.at(cell.cluster).push_back(n);
        cells.push_back(cell);
    }
    nets.resize(net_count);
    sinks.resize(net_count);
    cell_pins.resize(cell_count);
    for (int n = 0; n < pin_count; n++) {
        Pin pin;
        pin.cell = whole(), pin.net = whole(), pin.drives = whole(), pin.direct = whole();
        pin.start = float(number()), pin.end = float(number()), pin.domain = whole();
        domains = std::max(domains, pin.domain + 1);
        if (pin.drives)
            nets.at(pin.net).driver = n;
        else
            sinks.at(pin.net).push_back(n);
        if (!pin.direct) {
            nets[pin.net].pins.push_back(n);
            cell_pins.at(pin.cell).push_back(n);
        }
        pins.push_back(pin);
    }
    for (Net &net : nets)
        net.weight = wires_of(int(net.pins.size()));
    ways_from.resize(pin_count);
    ways_to.resize(pin_count);
    for (int n = 0; n < way_count; n++) {
        const int from = whole(), to = whole();
        const float delay = float(number());
        ways_from.at(from).push_back({to, delay});
        ways_to.at(to).push_back({from, delay});
    }
    over_before.assign(width * height, 0);
    for (int n = whole(); n > 0; n--) {
        const int x = whole(), y = whole();
        over_before.at(y * width + x) = number();
    }
    fclose(input);
    check_tiles();
    return schedule;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 3)
        refuse("usage: anneal DESIGN RESULT");
    const Schedule schedule = read(argv[1]);
    for (int n = 0; n < int(clusters.size()); n++)
        if (clusters[n].size() > 2)
            large.push_back(n);
    boxes.assign(nets.size(), Box{0, 0, 0, 0, 0, 0, 0, 0});
    new_boxes = boxes;
    box_lost.resize(nets.size());
    wire_ns.assign(pins.size(), 0);
    new_wire_ns = importance = bearable = wire_ns;
    cluster_seen.assign(clusters.size(), 0);
    net_seen.assign(nets.size(), 0);
    pin_seen.assign(pins.size(), 0);
    tile_seen.assign(at.size() / SITES, 0);
    prices.resize((width + 1) * (height + 1));
    find_order();
    anneal(schedule);
    check_tiles();

    FILE *out = fopen(argv[2], "w");
    if (!out)
        refuse(std::string("cannot write ") + argv[2]);
    for (const Cell &cell : cells)
        fprintf(out, "%d %d %d\n", cell.x, cell.y, cell.site);
    return fclose(out) ? 1 : 0;
}
