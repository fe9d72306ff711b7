//! The few words of rtnetlink that enforcement needs: dumps, and the kernel's own reason for a refusal.
//!
//! Attributes are read one by one and unknown ones skipped, so that a link with something new in it is still seen.
use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Message types of `linux/rtnetlink.h`.
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_SETLINK: u16 = 19;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const HEADER: usize = 16;

/// A dump that the kernel says was disturbed by changes is taken again, this many times at the most.
const DUMP_ATTEMPTS: usize = 4;

/// One message: its type, its flags, and what follows the header.
pub(super) struct Message<'a> {
    pub kind: u16,
    pub body: &'a [u8],
    flags: u16,
    sequence: u32,
}

/// The messages in a datagram; stops at the first one that is cut short.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = word(bytes, 0)? as usize;
        let body = bytes.get(HEADER..length)?;
        let message = Message {
            kind: half(bytes, 4)?,
            flags: half(bytes, 6)?,
            sequence: word(bytes, 8)?,
            body,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes of a message after its fixed part of `skip` bytes: type without flag bits, and value.
pub(super) fn attributes(body: &[u8], skip: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(skip..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = half(rest, 0)? as usize;
        // The two upper bits say "nested" and "big endian".
        let kind = half(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A 32-bit number in the machine's order at `at`.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|raw| u32::from_ne_bytes(*raw))
}

/// A 16-bit number in the machine's order at `at`.
pub(super) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|raw| u16::from_ne_bytes(*raw))
}

/// A text attribute without its closing zero.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// Appends one attribute, padded.
pub(super) fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // An attribute is at most a few dozen bytes here, so its length fits.
    body.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// What the kernel answered to a request that changes something.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The error number.
    pub error: io::Error,
    /// The driver's or the stack's own words.
    pub words: Option<String>,
}

/// A socket for questions, in the network namespace of the thread that opened it.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens and binds one.
    pub fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // Kernels without it (before 4.12) answer with the number alone.
        let _ = socket.set_ext_ack(true);
        Ok(Netlink { socket, sequence: 0 })
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let length = HEADER + body.len();
        let mut message = Vec::with_capacity(length);
        message.extend_from_slice(&(length as u32).to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&0u32.to_ne_bytes());
        message.extend_from_slice(body);
        self.socket.send_to(&message, &SocketAddr::new(0, 0), 0).map(drop)
    }

    /// Asks for everything of a kind and hands each answer's type and body to `each`.
    ///
    /// `each` starts anew (`restart` is called) when the table changed under the dump.
    pub fn dump<S: Default>(
        &mut self,
        kind: u16,
        body: &[u8],
        mut each: impl FnMut(&mut S, u16, &[u8]),
    ) -> io::Result<S> {
        for attempt in 1.. {
            let mut gathered = S::default();
            self.send(kind, NLM_F_DUMP, body)?;
            if self.gather(&mut gathered, &mut each)? || attempt == DUMP_ATTEMPTS {
                return Ok(gathered);
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Reads a dump to its end; `false`: it was disturbed.
    fn gather<S>(
        &self,
        gathered: &mut S,
        each: &mut impl FnMut(&mut S, u16, &[u8]),
    ) -> io::Result<bool> {
        let mut whole = true;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in messages(&datagram).filter(|message| message.sequence == self.sequence) {
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(whole),
                    NLMSG_ERROR => return Err(error_of(message.body)),
                    kind => each(gathered, kind, message.body),
                }
            }
        }
    }

    /// Asks for a change and waits for the answer.
    pub fn request(&mut self, kind: u16, body: &[u8]) -> Result<(), Refusal> {
        let silent = |error| Refusal { error, words: None };
        self.send(kind, NLM_F_ACK, body).map_err(silent)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full().map_err(silent)?;
            for message in messages(&datagram).filter(|message| message.sequence == self.sequence) {
                if message.kind == NLMSG_ERROR {
                    return match word(message.body, 0) {
                        Some(0) => Ok(()),
                        _ => Err(Refusal {
                            error: error_of(message.body),
                            words: words_of(&message),
                        }),
                    };
                }
            }
        }
    }
}

fn error_of(body: &[u8]) -> io::Error {
    word(body, 0).map_or_else(
        || io::ErrorKind::InvalidData.into(),
        |code| io::Error::from_raw_os_error((code as i32).wrapping_neg()),
    )
}

/// The text behind the error number: after the copied request, whole or its header alone.
fn words_of(message: &Message<'_>) -> Option<String> {
    if message.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let copied =
        if message.flags & NLM_F_CAPPED != 0 { HEADER } else { word(message.body, 4)? as usize };
    attributes(message.body, 4 + copied.next_multiple_of(4))
        .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
        .map(|(_, value)| text(value).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_padding_and_end_at_damage() {
        let mut body = vec![9; 8];
        push_attribute(&mut body, 3, b"eth0\0");
        push_attribute(&mut body, 0x8000 | 43, &7u32.to_ne_bytes());
        let whole: Vec<_> = attributes(&body, 8).collect();
        assert_eq!(whole, [(3, &b"eth0\0"[..]), (43, &7u32.to_ne_bytes()[..])]);
        assert_eq!(text(whole[0].1), "eth0");
        assert_eq!(attributes(&body[..body.len() - 1], 8).count(), 1);
        // A length below the header's own would loop for ever.
        assert_eq!(attributes(&[0, 0, 1, 0, 0, 0, 0, 0], 0).count(), 0);
        assert_eq!(messages(&[0; 16]).count(), 0);
    }

    #[test]
    fn the_kernels_words_are_found_behind_a_whole_and_a_capped_request() {
        for (flags, copied) in [(NLM_F_ACK_TLVS, 24u32), (NLM_F_ACK_TLVS | NLM_F_CAPPED, 16)] {
            let mut body = (-95i32).to_ne_bytes().to_vec();
            let mut request = vec![0; copied as usize];
            request[..4].copy_from_slice(&24u32.to_ne_bytes());
            body.extend(request);
            push_attribute(&mut body, NLMSGERR_ATTR_MSG, b"MTU too large\0");
            let message = Message { kind: NLMSG_ERROR, flags, sequence: 1, body: &body };
            assert_eq!(words_of(&message).as_deref(), Some("MTU too large"));
            assert_eq!(error_of(&body).raw_os_error(), Some(95));
        }
    }

    #[test]
    fn loopback_is_found_by_a_dump() {
        let names = Netlink::open().unwrap().dump(
            RTM_GETLINK,
            &[0; 16],
            |names: &mut Vec<String>, kind, body| {
                if kind == RTM_NEWLINK {
                    names.extend(
                        attributes(body, 16)
                            .find(|(kind, _)| *kind == 3)
                            .map(|(_, value)| text(value)),
                    );
                }
            },
        );
        assert!(names.unwrap().contains(&"lo".to_owned()));
    }
}
