//! Every map, declared once. Sizes are those of the default object; the loader sets the real ones.
use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf},
    macros::btf_map,
};
use fail2xdp_common::{
    capacity::{self, BANS},
    clock,
    config::Config,
    name::{NameKey, NamePiece},
    report::{BanStat, Counter, EventWindow},
    value::{Ban, LineV4, LineV6, MoreSlots},
};

/// `BPF_F_MMAPABLE`. It also begins the values on a page, so that a line is a cache line.
const MMAPABLE: usize = 1 << 10;
/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: usize = 1;

#[btf_map]
pub static BANS_V4: LpmTrie<[u8; 4], Ban, { capacity::trie(BANS) }> = LpmTrie::new();
#[btf_map]
pub static BANS_V6: LpmTrie<[u8; 16], Ban, { capacity::trie(BANS) }> = LpmTrie::new();
#[btf_map]
pub static MORE_SLOTS: HashMap<u32, MoreSlots, { capacity::more_slots(BANS) }, NO_PREALLOC> =
    HashMap::new();
#[btf_map]
pub static HOSTS_V4: Array<LineV4, { capacity::lines_v4(BANS) }, MMAPABLE> = Array::new();
#[btf_map]
pub static HOSTS_V6: Array<LineV6, { capacity::lines_v6(BANS) }, MMAPABLE> = Array::new();
#[btf_map]
pub static HINT_V4: Array<u64, { capacity::hint_v4(BANS) }, MMAPABLE> = Array::new();
#[btf_map]
pub static HINT_V6: Array<u64, { capacity::hint_v6(BANS) }, MMAPABLE> = Array::new();
#[btf_map]
pub static NETS_V4: Array<u64, { capacity::NETS_V4 }, MMAPABLE> = Array::new();
#[btf_map]
pub static NETS_V6: Array<u64, { capacity::nets_v6(BANS) }, MMAPABLE> = Array::new();
#[btf_map]
pub static ALLOW_V4: LpmTrie<[u8; 4], u32, { capacity::ALLOW }> = LpmTrie::new();
#[btf_map]
pub static ALLOW_V6: LpmTrie<[u8; 16], u32, { capacity::ALLOW }> = LpmTrie::new();
#[btf_map]
pub static SCOPES: Array<u64, { capacity::SCOPES }, MMAPABLE> = Array::new();
/// Read by people and by the next daemon, never by the program.
#[btf_map]
pub static NAMES: HashMap<NameKey, NamePiece, { capacity::NAMES }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static CONFIG: Array<Config, 1, MMAPABLE> = Array::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<Counter, { capacity::COUNTERS }> = PerCpuArray::new();
#[btf_map]
pub static BAN_STATS: Array<BanStat, { capacity::ban_stats(BANS) }, MMAPABLE> = Array::new();
#[btf_map]
pub static EVENT_WINDOW: PerCpuArray<EventWindow, 1> = PerCpuArray::new();
#[btf_map]
pub static EVENTS: RingBuf<(), { capacity::EVENTS }> = RingBuf::new();

/// Which clock; the verifier removes the ways not taken.
#[unsafe(no_mangle)]
pub static CLOCK: Global<u8> = Global::new(clock::JIFFIES);
