//! What the program says of single packets: sampled drops, and its own log where it was built with one.
use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use aya::{
    Ebpf,
    maps::{Map, MapData, RingBuf},
};
use aya_log::EbpfLogger;
use fail2xdp_common::{map, report::Event, scope_row};

use super::{attachments::chain, fault::EnforceError, interfaces::Network, tables::Maps};

/// Samples read at once; the buffer holds 5,000.
const AT_ONCE: usize = 10_000;

/// Reads the ring buffers of one set.
pub(super) struct Drops {
    events: Option<MapData>,
    /// Opened when it is read first: two sets share the buffer while maps grow, and a reader that is opened while
    /// another one reads would go on from a place that is long overwritten.
    samples: Option<RingBuf<MapData>>,
    log: Option<EbpfLogger<Forward>>,
}

impl fmt::Debug for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drops").field("log", &self.log.is_some()).finish_non_exhaustive()
    }
}

/// Hands the program's own log on to the daemon's.
#[derive(Debug)]
struct Forward;

impl log::Log for Forward {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::info!("kernel: {}", record.args());
    }

    fn flush(&self) {}
}

impl Drops {
    /// Those of an object whose maps are `maps`.
    pub fn of(ebpf: &mut Ebpf, maps: &Maps) -> Result<Drops, EnforceError> {
        let wrong = |what: String| EnforceError::Object { what };
        let events = maps
            .handle_to(map::EVENTS)
            .map_err(|source| EnforceError::Table { doing: "read sampled drops", source })?;
        // The plain object has no such map.
        let log = match EbpfLogger::init_with_logger(ebpf, Forward) {
            Ok(log) => Some(log),
            Err(aya_log::Error::MapNotFound) => None,
            Err(fault) => return Err(wrong(chain(&fault))),
        };
        Ok(Drops { events: Some(events), samples: None, log })
    }

    /// Writes what has come to the log: sampled drops at level debug, the program's own words at level info.
    ///
    /// Samples nobody wants are taken out all the same, so that those of now find room.
    pub fn tell(&mut self, network: &Network) {
        let wanted = tracing::enabled!(tracing::Level::DEBUG);
        if let Some(events) = self.events.take() {
            let opened = RingBuf::try_from(Map::RingBuf(events));
            self.samples = opened
                .inspect_err(|fault| tracing::warn!("no samples of drops: {}", chain(fault)))
                .ok();
        }
        for _ in 0..AT_ONCE {
            let Some(sample) = self.samples.as_mut().and_then(RingBuf::next) else { break };
            if wanted && let Some(event) = read(&sample) {
                tracing::debug!("{}", describe(&event, network));
            }
        }
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }
}

/// Reads one record of `EVENTS`.
fn read(bytes: &[u8]) -> Option<Event> {
    let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    Some(Event {
        source: *bytes.first_chunk()?,
        second: word(16)?,
        ban_id: word(20)?,
        interface: word(24)?,
        scope_row: word(28)?,
        length: word(32)?,
        jail: half(36)?,
        family: *bytes.get(38)?,
        observed: *bytes.get(39)?,
    })
}

/// `dropped 192.0.2.7, tcp port 22, 60 bytes on eth0`.
fn describe(event: &Event, network: &Network) -> String {
    let [a, b, c, d, ..] = event.source;
    let source = if event.family == 4 {
        Ipv4Addr::new(a, b, c, d).to_string()
    } else {
        Ipv6Addr::from(event.source).to_string()
    };
    let what = match event.scope_row {
        scope_row::UNKNOWN => "protocol unknown".to_owned(),
        row if row >= scope_row::PROTOCOL => format!("protocol {}", row - scope_row::PROTOCOL),
        row if row >= scope_row::UDP => format!("udp port {}", row - scope_row::UDP),
        row => format!("tcp port {row}"),
    };
    let interface =
        network.by_index(event.interface).map_or("an interface that is gone", |one| &one.name);
    let dropped = if event.observed == 0 { "dropped" } else { "would drop" };
    format!("{dropped} {source}, {what}, {} bytes on {interface}", event.length)
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::enforce::interfaces::Device;

    #[test]
    fn a_record_is_read_where_its_fields_stand() {
        let mut bytes = [0u8; size_of::<Event>()];
        bytes[..4].copy_from_slice(&[192, 0, 2, 7]);
        bytes[offset_of!(Event, interface)] = 2;
        bytes[offset_of!(Event, scope_row)] = 22;
        bytes[offset_of!(Event, length)] = 60;
        bytes[offset_of!(Event, family)] = 4;
        bytes[offset_of!(Event, jail)] = 3;
        bytes[offset_of!(Event, second)] = 9;
        bytes[offset_of!(Event, ban_id)] = 5;
        let event = read(&bytes).unwrap();
        assert_eq!((event.second, event.ban_id, event.jail), (9, 5, 3));
        let network = Network { devices: vec![Device::ethernet(2, "eth0")], ..Network::default() };
        assert_eq!(describe(&event, &network), "dropped 192.0.2.7, tcp port 22, 60 bytes on eth0");
        let udp = Event { scope_row: scope_row::UDP + 53, family: 6, interface: 9, ..event };
        assert_eq!(
            describe(&udp, &network),
            "dropped c000:207::, udp port 53, 60 bytes on an interface that is gone"
        );
        assert!(read(&bytes[..39]).is_none());
    }
}
