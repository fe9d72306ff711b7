//! A program with maps of its own, and packets to run through it.
use aya::{
    Ebpf, EbpfLoader,
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use fail2xdp::enforce::tables::{Maps, Sizes, Tables, object};
use fail2xdp_common::program;

/// Unix seconds of every test that does not say otherwise.
pub const NOW: u32 = 1_800_000_000;

/// What a driver is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pass,
    Drop,
}

/// A loaded object.
pub struct Lab {
    object: Ebpf,
    program: &'static str,
}

const REMEDY: &str = "these tests load BPF programs: run them as root (or with CAP_BPF, CAP_NET_ADMIN and \
                      CAP_PERFMON) on Linux 5.10 or later";

impl Lab {
    /// The plain program with maps of these sizes.
    pub fn new(sizes: Sizes) -> Lab {
        Lab::of(object::plain(), program::BAN, sizes)
    }

    /// One program of an object.
    #[track_caller]
    pub fn of(bytes: &[u8], program: &'static str, sizes: Sizes) -> Lab {
        let mut loader = EbpfLoader::new();
        for (map, entries) in sizes.entries() {
            loader.map_max_entries(map, entries);
        }
        let mut object = loader.load(bytes).unwrap_or_else(|error| panic!("{error:?}; {REMEDY}"));
        let xdp = Lab::program_of(&mut object, program);
        xdp.load().unwrap_or_else(|error| panic!("program `{program}`: {error:?}; {REMEDY}"));
        Lab { object, program }
    }

    fn program_of<'a>(object: &'a mut Ebpf, name: &str) -> &'a mut Xdp {
        let program = object
            .program_mut(name)
            .unwrap_or_else(|| panic!("the object has no program `{name}`"));
        program.try_into().expect("an XDP program")
    }

    /// Its maps.
    pub fn maps(&self) -> Maps {
        Maps::of(&self.object).expect("maps of the shapes that the object was built with")
    }

    /// Fresh tables with the clock standing at [`NOW`].
    pub fn tables(&self) -> Tables {
        let mut tables = Tables::fresh(self.maps()).expect("fresh maps");
        stand_still(&mut tables, NOW);
        tables
    }

    /// Runs the program on a packet once.
    #[track_caller]
    pub fn run(&mut self, packet: &[u8]) -> Action {
        self.repeat(packet, 1).0
    }

    /// Runs it so many times; the last action and nanoseconds for one.
    #[track_caller]
    pub fn repeat(&mut self, packet: &[u8], times: u32) -> (Action, u64) {
        let program = Lab::program_of(&mut self.object, self.program);
        let options =
            TestRunOptions { data_in: Some(packet), repeat: times, ..TestRunOptions::new() };
        let result = program
            .test_run(options)
            .unwrap_or_else(|error| panic!("test run: {error:?}; {REMEDY}"));
        let action = match result.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            other => panic!("the program answered {other}, which is neither XDP_DROP nor XDP_PASS"),
        };
        (action, result.duration.as_nanos() as u64)
    }

    /// Runs the program on a packet and returns the packet as it left it.
    pub fn transform(&mut self, packet: &[u8]) -> Vec<u8> {
        let program = Lab::program_of(&mut self.object, self.program);
        let mut out = vec![0; packet.len() + 256];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        };
        let result = program
            .test_run(options)
            .unwrap_or_else(|error| panic!("test run: {error:?}; {REMEDY}"));
        out.truncate(result.data_size_out as usize);
        out
    }
}

/// Makes the program's clock stand at these Unix seconds.
pub fn stand_still(tables: &mut Tables, now: u32) {
    tables.set_clock(0, u64::from(now) << 32);
}
