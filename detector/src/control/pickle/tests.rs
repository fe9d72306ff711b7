use super::*;
use crate::control::command::Class;

#[track_caller]
fn check(bytes: &[u8], expect: &str) {
    let shown = match read(bytes) {
        Ok(value) => value.to_string(),
        Err(error) => format!("! {error}"),
    };
    assert_eq!(shown, expect);
}

#[test]
fn what_fail2bans_client_sends_is_read() {
    // Python's own: dumps(["set", "j", "bantime", "600"], P), for each protocol.
    check(
        b"(lp0\nVset\np1\naVj\np2\naVbantime\np3\naV600\np4\na.",
        "['set', 'j', 'bantime', '600']",
    );
    check(
        b"]q\0(X\x03\0\0\0setq\x01X\x01\0\0\0jq\x02K\x07G?\xb9\x99\x99\x99\x99\x99\x9ae.",
        "['set', 'j', 7, 0.1]",
    );
    check(
        b"\x80\x05\x95\x1f\0\0\0\0\0\0\0]\x94(\x8c\x04ping\x94G?\xb9\x99\x99\x99\x99\x99\x9ae.",
        "['ping', 0.1]",
    );
    // The same string twice is named again.
    check(
        b"\x80\x04]\x94(\x8c\x01a\x94h\x01\x88\x89NJ\xff\xff\xff\xffe.",
        "['a', 'a', True, False, None, -1]",
    );
    check(
        b"\x80\x04}\x94(\x8c\x01a\x94]\x94(K\x01\x8a\x02\x00\x80e\x8c\x01b\x94K\x02\x86u.",
        "! it is no pickle: a name has no value",
    );
    check(b"\x80\x04}\x94\x8c\x01a\x94]\x94(K\x01\x8a\x02\x00\x80es.", "{'a': [1, -32768]}");
    check(b"\x80\x04K\x01K\x02\x86.", "(1, 2)");
}

#[test]
fn nothing_that_names_or_calls_code_is_read() {
    check(b"cos\nsystem\n(S'id'\ntR.", "! opcode 0x63 is not read: only plain data is");
    check(
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        "! opcode 0x93 is not read: only plain data is",
    );
    for opcode in [b'R', b'b', b'i', b'o', b'P', b'Q', 0x81, 0x82, 0x83, 0x84, 0x92, 0x97, 0x98] {
        assert_eq!(read(&[b')', opcode, b'.']), Err(PickleError::Opcode(opcode)));
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let nested = |depth: usize| [vec![b']'; depth], vec![b'a'; depth - 1], vec![b'.']].concat();
    assert!(read(&nested(16)).is_ok());
    assert_eq!(read(&nested(17)), Err(PickleError::Deep));
    assert_eq!(read(&vec![b']'; MAX_MESSAGE + 1]), Err(PickleError::Long));
    assert_eq!(read(&vec![b'('; MAX_MESSAGE]), Err(PickleError::Short));
    // A long text named again and again would take a hundred gigabytes.
    let mut bomb = vec![b'(', b'X', 0, 0, 4, 0];
    bomb.extend(vec![b'x'; 4 << 16]);
    bomb.extend_from_slice(b"q\0");
    bomb.extend(b"h\0".repeat(200_000));
    bomb.extend_from_slice(b"l.");
    assert_eq!(read(&bomb), Err(PickleError::Large));
}

proptest::proptest! {
    /// Opcodes that build, count and name, in any order, with any bytes between them.
    #[test]
    fn any_bytes_end_without_harm(
        bytes in proptest::collection::vec(
            proptest::prelude::prop_oneof![
                proptest::sample::select(b"]}()etsuadl012qhrjpgNKMJX\x85\x86\x87\x88\x8a\x8c\x94\x90".to_vec()),
                proptest::prelude::any::<u8>(),
                0u8..4,
            ],
            0..200,
        )
    ) {
        if let Ok(value) = read(&[bytes, vec![b'.']].concat()) {
            proptest::prop_assert_eq!(read(&message(&value)), Ok(value));
        }
    }
}

#[test]
fn half_a_message_is_none() {
    let whole = message(&Value::List(vec!["status".into(), 600.into(), Value::Tuple(vec![])]));
    for length in 0..whole.len() {
        assert!(read(&whole[..length]).is_err(), "{length}");
    }
    assert_eq!(read(&whole).map(|value| value.to_string()), Ok("['status', 600, ()]".into()));
}

#[test]
fn answers_are_written_as_python_reads_them() {
    let value = Value::List(vec![
        Value::Nothing,
        true.into(),
        (1_i64 << 40).into(),
        Value::Number("0.5".into()),
        Value::Map(vec![("j".into(), Value::List(vec!["\u{e9}".into()]))]),
    ]);
    let read = read(&answer(&Ok(value.clone())));
    assert_eq!(read, Ok(Value::Tuple(vec![0.into(), value])));
    assert_eq!(
        answer(&Err(Fault::new(Class::UnknownJail, "j"))),
        b"\x80\x02J\x01\0\0\0cfail2ban.exceptions\nUnknownJailException\n(X\x01\0\0\0jtR\x86."
    );
}
