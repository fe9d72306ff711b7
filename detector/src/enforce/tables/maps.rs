//! The maps of one set: opened, compared with what this version expects, and written.
//!
//! Every write to a map that the program reads goes through [`Maps`], so that a test can cut the writer
//! off between any two.
use std::{
    cell::RefCell,
    fmt,
    marker::PhantomData,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use aya::{
    Ebpf, Pod,
    maps::{Map, MapData, MapInfo, MapType},
};
use fail2xdp_common::{
    config::Config,
    map,
    name::{NameKey, NamePiece},
    report::{BanStat, Counter, EventWindow},
    value::{Ban, LineV4, LineV6, MoreSlots},
};

use super::{
    TableError,
    memory::Memory,
    prefix::{Family, KeyV4, KeyV6},
    sizes::Sizes,
    sys::{self, Typed},
};

/// What a map is, apart from its size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// The map's name.
    pub name: &'static str,
    /// Its kind.
    pub kind: MapType,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// `BPF_F_*`.
    pub flags: u32,
}

const NO_PREALLOC: u32 = 1;
const MMAPABLE: u32 = 1 << 10;

const fn shape(name: &'static str, kind: MapType, key: usize, value: usize, flags: u32) -> Shape {
    Shape { name, kind, key: key as u32, value: value as u32, flags }
}

const fn shared<T>(name: &'static str) -> Shape {
    shape(name, MapType::Array, 4, size_of::<T>(), MMAPABLE)
}

const fn trie<K, V>(name: &'static str) -> Shape {
    shape(name, MapType::LpmTrie, size_of::<K>(), size_of::<V>(), NO_PREALLOC)
}

const fn hash<K, V>(name: &'static str) -> Shape {
    shape(name, MapType::Hash, size_of::<K>(), size_of::<V>(), NO_PREALLOC)
}

const fn per_cpu<T>(name: &'static str) -> Shape {
    shape(name, MapType::PerCpuArray, 4, size_of::<T>(), 0)
}

/// Every map of a set, in the order of [`map::ALL`].
pub const SHAPES: [Shape; 18] = [
    trie::<KeyV4, Ban>(map::BANS_V4),
    trie::<KeyV6, Ban>(map::BANS_V6),
    hash::<u32, MoreSlots>(map::MORE_SLOTS),
    shared::<LineV4>(map::HOSTS_V4),
    shared::<LineV6>(map::HOSTS_V6),
    shared::<u64>(map::HINT_V4),
    shared::<u64>(map::HINT_V6),
    shared::<u64>(map::NETS_V4),
    shared::<u64>(map::NETS_V6),
    trie::<KeyV4, u32>(map::ALLOW_V4),
    trie::<KeyV6, u32>(map::ALLOW_V6),
    shared::<u64>(map::SCOPES),
    hash::<NameKey, NamePiece>(map::NAMES),
    shared::<Config>(map::CONFIG),
    per_cpu::<Counter>(map::COUNTERS),
    shared::<BanStat>(map::BAN_STATS),
    per_cpu::<EventWindow>(map::EVENT_WINDOW),
    shape(map::EVENTS, MapType::RingBuf, 0, 0, 0),
];

/// An open map.
#[derive(Debug)]
struct Handle {
    name: &'static str,
    data: MapData,
    entries: u32,
}

impl Handle {
    fn fd(&self) -> BorrowedFd<'_> {
        self.data.fd().as_fd()
    }
}

/// A map reached by system calls.
#[derive(Debug)]
pub struct Keyed<K, V> {
    handle: Handle,
    sizes: PhantomData<fn() -> (K, V)>,
}

impl<K: Pod, V: Pod> Typed<K, V> for Keyed<K, V> {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.handle.fd()
    }
}

impl<K: Pod, V: Pod> Keyed<K, V> {
    /// What is under `key`; for a trie, under the longest prefix that covers it.
    ///
    /// # Errors
    /// [`TableError::Call`].
    pub fn get(&self, key: &K) -> Result<Option<V>, TableError> {
        sys::lookup(self, key).map_err(|source| self.fault("read", source))
    }

    /// The key after `key`, or the first.
    ///
    /// # Errors
    /// [`TableError::Call`].
    pub fn next_key(&self, key: Option<&K>) -> Result<Option<K>, TableError> {
        sys::next_key(self, key).map_err(|source| self.fault("walk through", source))
    }

    /// Every key.
    ///
    /// # Errors
    /// [`TableError::Call`].
    pub fn keys(&self) -> Result<Vec<K>, TableError> {
        sys::keys(self).map_err(|source| self.fault("walk through", source))
    }

    /// Every key with its value.
    ///
    /// # Errors
    /// [`TableError::Call`].
    pub fn all(&self) -> Result<Vec<(K, V)>, TableError> {
        sys::entries(self).map_err(|source| self.fault("walk through", source))
    }

    fn fault(&self, action: &'static str, source: std::io::Error) -> TableError {
        match source.raw_os_error() {
            // A full trie says the one, a full hash the other.
            Some(libc::ENOSPC | libc::E2BIG) => {
                TableError::Full { map: self.handle.name, entries: self.handle.entries }
            }
            _ => TableError::Call { action, map: self.handle.name, source },
        }
    }

    /// How many entries it has room for.
    pub fn entries(&self) -> u32 {
        self.handle.entries
    }
}

impl Keyed<u32, Counter> {
    /// A row, summed over all CPUs.
    ///
    /// # Errors
    /// [`TableError::Call`] or [`TableError::Processors`].
    pub fn sum(&self, row: u32) -> Result<Counter, TableError> {
        let processors =
            aya::util::nr_cpus().map_err(|(_, error)| TableError::Processors(error))?;
        let rows: Vec<Counter> = sys::lookup_per_cpu(self, &row, processors)
            .map_err(|source| self.fault("read", source))?;
        Ok(rows.iter().fold(Counter::default(), |sum, row| Counter {
            packets: sum.packets.wrapping_add(row.packets),
            bytes: sum.bytes.wrapping_add(row.bytes),
        }))
    }
}

/// An array in shared memory.
#[derive(Debug)]
pub struct Shared {
    handle: Handle,
    memory: Memory,
}

impl Shared {
    /// How many values it has.
    pub fn entries(&self) -> u32 {
        self.handle.entries
    }

    /// The 64-bit word at a byte offset; panics outside the map.
    pub fn word64(&self, offset: usize) -> &AtomicU64 {
        self.memory.word64(offset)
    }

    /// The 32-bit word at a byte offset; panics outside the map.
    pub fn word32(&self, offset: usize) -> &AtomicU32 {
        self.memory.word32(offset)
    }
}

type Hook = Box<dyn FnMut() + Send>;

/// One set of maps.
pub struct Maps {
    pub(super) bans_v4: Keyed<KeyV4, Ban>,
    pub(super) bans_v6: Keyed<KeyV6, Ban>,
    pub(super) more_slots: Keyed<u32, MoreSlots>,
    hosts: [Shared; 2],
    hints: [Shared; 2],
    nets: [Shared; 2],
    pub(super) allow_v4: Keyed<KeyV4, u32>,
    pub(super) allow_v6: Keyed<KeyV6, u32>,
    pub(super) scopes: Shared,
    pub(super) names: Keyed<NameKey, NamePiece>,
    pub(super) config: Shared,
    pub(super) counters: Keyed<u32, Counter>,
    pub(super) stats: Shared,
    window: Keyed<u32, EventWindow>,
    events: Handle,
    before_write: RefCell<Option<Hook>>,
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maps").field("sizes", &self.sizes()).finish_non_exhaustive()
    }
}

impl Maps {
    /// The maps of a loaded object. The object keeps its own handles.
    ///
    /// # Errors
    /// [`TableError::Missing`] or [`TableError::Shape`] for an object of another version.
    pub fn of(object: &Ebpf) -> Result<Maps, TableError> {
        Maps::from(|name| {
            let data = match object.map(name) {
                Some(Map::Array(data) | Map::LpmTrie(data) | Map::HashMap(data)) => data,
                Some(Map::PerCpuArray(data) | Map::RingBuf(data)) => data,
                _ => return Err(TableError::Missing { map: name }),
            };
            duplicate(name, data)
        })
    }

    /// The maps pinned in a folder under their names.
    ///
    /// # Errors
    /// [`TableError::Open`] for a pin that is missing or unreadable, [`TableError::Shape`] for a map of
    /// another version.
    pub fn open(folder: &Path) -> Result<Maps, TableError> {
        Maps::from(|name| {
            let path = folder.join(name);
            MapData::from_pin(&path).map_err(|source| TableError::Open { path, source })
        })
    }

    fn from(
        mut open: impl FnMut(&'static str) -> Result<MapData, TableError>,
    ) -> Result<Maps, TableError> {
        let mut handle = |name: &'static str| {
            let shape = SHAPES
                .iter()
                .find(|shape| shape.name == name)
                .ok_or(TableError::Missing { map: name })?;
            let data = open(name)?;
            let info = data
                .info()
                .map_err(|error| TableError::Shape { map: name, what: error.to_string() })?;
            compare(shape, &info)?;
            Ok::<_, TableError>(Handle { name, data, entries: info.max_entries() })
        };
        Ok(Maps {
            bans_v4: keyed(handle(map::BANS_V4)?),
            bans_v6: keyed(handle(map::BANS_V6)?),
            more_slots: keyed(handle(map::MORE_SLOTS)?),
            hosts: [
                share::<LineV4>(handle(map::HOSTS_V4)?)?,
                share::<LineV6>(handle(map::HOSTS_V6)?)?,
            ],
            hints: [share::<u64>(handle(map::HINT_V4)?)?, share::<u64>(handle(map::HINT_V6)?)?],
            nets: [share::<u64>(handle(map::NETS_V4)?)?, share::<u64>(handle(map::NETS_V6)?)?],
            allow_v4: keyed(handle(map::ALLOW_V4)?),
            allow_v6: keyed(handle(map::ALLOW_V6)?),
            scopes: share::<u64>(handle(map::SCOPES)?)?,
            names: keyed(handle(map::NAMES)?),
            config: share::<Config>(handle(map::CONFIG)?)?,
            counters: keyed(handle(map::COUNTERS)?),
            stats: share::<BanStat>(handle(map::BAN_STATS)?)?,
            window: keyed(handle(map::EVENT_WINDOW)?),
            events: handle(map::EVENTS)?,
            before_write: RefCell::new(None),
        })
    }

    fn handles(&self) -> [&Handle; 18] {
        [
            &self.bans_v4.handle,
            &self.bans_v6.handle,
            &self.more_slots.handle,
            &self.hosts[0].handle,
            &self.hosts[1].handle,
            &self.hints[0].handle,
            &self.hints[1].handle,
            &self.nets[0].handle,
            &self.nets[1].handle,
            &self.allow_v4.handle,
            &self.allow_v6.handle,
            &self.scopes.handle,
            &self.names.handle,
            &self.config.handle,
            &self.counters.handle,
            &self.stats.handle,
            &self.window.handle,
            &self.events,
        ]
    }

    /// Pins every map in an existing folder of a BPF file system, under its name.
    ///
    /// # Errors
    /// [`TableError::Pin`], also for a name that is taken.
    pub fn pin(&self, folder: &Path) -> Result<(), TableError> {
        self.handles().into_iter().try_for_each(|handle| {
            let path = folder.join(handle.name);
            handle.data.pin(&path).map_err(|source| TableError::Pin {
                map: handle.name,
                path,
                source,
            })
        })
    }

    /// Events that no CPU sent, since the maps were made.
    ///
    /// # Errors
    /// [`TableError::Call`] or [`TableError::Processors`].
    pub fn suppressed_events(&self) -> Result<u64, TableError> {
        let processors =
            aya::util::nr_cpus().map_err(|(_, error)| TableError::Processors(error))?;
        let windows: Vec<EventWindow> = sys::lookup_per_cpu(&self.window, &0, processors)
            .map_err(|source| self.window.fault("read", source))?;
        Ok(windows.iter().map(|window| window.suppressed).sum())
    }

    /// Every map's name, and for how many entries it has room.
    pub fn capacities(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.handles().into_iter().map(|handle| (handle.name, handle.entries))
    }

    /// A second handle to a map, for instance to read `EVENTS`.
    ///
    /// # Errors
    /// [`TableError::Missing`] for a name that is none, [`TableError::Call`] without file descriptors.
    pub fn handle_to(&self, name: &'static str) -> Result<MapData, TableError> {
        let handle = self.handles().into_iter().find(|handle| handle.name == name);
        let handle = handle.ok_or(TableError::Missing { map: name })?;
        duplicate(name, &handle.data)
    }

    /// The kernel's number of a map, by which a program that uses it can be recognised.
    ///
    /// # Errors
    /// [`TableError::Missing`] or [`TableError::Shape`].
    pub fn id_of(&self, name: &'static str) -> Result<u32, TableError> {
        let info = self.handle_to(name)?.info();
        Ok(info.map_err(|error| TableError::Shape { map: name, what: error.to_string() })?.id())
    }

    /// What the maps were made for.
    pub fn sizes(&self) -> Sizes {
        Sizes::of_lines(self.hosts[0].entries(), self.hosts[1].entries())
    }

    /// The layout version in `CONFIG`; 0 for maps never finished.
    pub fn layout(&self) -> u32 {
        self.config.word32(std::mem::offset_of!(Config, layout)).load(SeqCst)
    }

    pub(super) fn hosts(&self, family: Family) -> &Shared {
        &self.hosts[family as usize]
    }

    pub(super) fn hints(&self, family: Family) -> &Shared {
        &self.hints[family as usize]
    }

    pub(super) fn nets(&self, family: Family) -> &Shared {
        &self.nets[family as usize]
    }

    /// Calls `hook` before every write to a map: for tests that cut the writer off between any two.
    pub(super) fn before_each_write(&mut self, hook: Option<Hook>) {
        self.before_write = RefCell::new(hook);
    }

    /// Says that a write is about to happen.
    pub(super) fn step(&self) {
        if let Some(hook) = &mut *self.before_write.borrow_mut() {
            hook();
        }
    }

    /// Stores a word that a program may read at once. What was stored before is seen before.
    pub(super) fn store64(&self, word: &AtomicU64, value: u64) {
        self.step();
        word.store(value, SeqCst);
    }

    /// As [`Maps::store64`].
    pub(super) fn store32(&self, word: &AtomicU32, value: u32) {
        self.step();
        word.store(value, SeqCst);
    }

    /// Sets the bits that are set in `bits`.
    pub(super) fn raise(&self, word: &AtomicU64, bits: u64) {
        self.step();
        word.fetch_or(bits, SeqCst);
    }

    /// Clears the bits that are set in `bits`.
    pub(super) fn lower(&self, word: &AtomicU64, bits: u64) {
        self.step();
        word.fetch_and(!bits, SeqCst);
    }

    /// Adds to a word that the program adds to as well.
    pub(super) fn add(&self, word: &AtomicU64, value: u64) {
        self.step();
        word.fetch_add(value, Relaxed);
    }

    /// Puts a value under a key, in place of what was there.
    pub(super) fn put<K: Pod, V: Pod>(
        &self,
        map: &Keyed<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), TableError> {
        self.step();
        sys::update(map, key, value).map_err(|source| map.fault("write", source))
    }

    /// Takes out what is under a key; whether there was something.
    pub(super) fn remove<K: Pod, V: Pod>(
        &self,
        map: &Keyed<K, V>,
        key: &K,
    ) -> Result<bool, TableError> {
        self.step();
        sys::delete(map, key).map_err(|source| map.fault("delete from", source))
    }
}

fn duplicate(name: &'static str, data: &MapData) -> Result<MapData, TableError> {
    let own = data.fd().as_fd().try_clone_to_owned();
    let own = own.map_err(|source| TableError::Call { action: "keep", map: name, source })?;
    MapData::from_fd(own).map_err(|error| TableError::Shape { map: name, what: error.to_string() })
}

fn keyed<K: Pod, V: Pod>(handle: Handle) -> Keyed<K, V> {
    Keyed { handle, sizes: PhantomData }
}

fn share<T>(handle: Handle) -> Result<Shared, TableError> {
    // The kernel rounds each value up to 8 bytes; ours are multiples already.
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    let memory = Memory::map(handle.fd(), handle.entries as usize * size_of::<T>());
    let memory = memory.map_err(|source| TableError::Call {
        action: "map into memory",
        map: handle.name,
        source,
    })?;
    Ok(Shared { handle, memory })
}

fn compare(shape: &Shape, info: &MapInfo) -> Result<(), TableError> {
    let fault = |what| Err(TableError::Shape { map: shape.name, what });
    match info.map_type() {
        Ok(kind) if kind == shape.kind => {}
        Ok(kind) => return fault(format!("it is {kind:?}, not {:?}", shape.kind)),
        Err(error) => return fault(error.to_string()),
    }
    for (what, found, wanted) in [
        ("bytes of a key", info.key_size(), shape.key),
        ("bytes of a value", info.value_size(), shape.value),
        ("flags", info.map_flags(), shape.flags),
    ] {
        if found != wanted {
            return fault(format!("{found} {what} instead of {wanted}"));
        }
    }
    Ok(())
}
