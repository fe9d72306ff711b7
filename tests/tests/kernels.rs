//! Promise: on a kernel that cannot enforce, the daemon says what the kernel lacks and what to do.
use std::process::Command;

use fail2xdp_tests::{Guest, Kernel, Net, Site, tool};

const JAILS: &str = "[sshd]\nenabled = false\n\
    [guard]\nenabled = true\nfilter = sshd\nport = 2222\nlogpath = /tmp/log\n";

/// Tries to enforce, then to detect only, and shows what was left behind.
const TRY: &str = r#"
/bin/ip link add v0 type veth peer name v1; /bin/ip link set v0 up; /bin/ip link set v1 up
fail2xdp run --interface v0 2>&1; echo "exit $?"
echo "pinned: $(find /sys/fs/bpf -type f | tr '\n' ' ')"
echo "attached: $(/bin/ip link show v0 | grep -c xdp)"
fail2xdp run --mode none >/tmp/said 2>&1 &
tries=0
until grep -q ready /tmp/said; do tries=$((tries+1)); [ $tries -gt 300 ] && break; usleep 100000; done
grep -c ready /tmp/said
"#;

#[test]
fn a_kernel_without_btf_is_named_and_nothing_is_left_behind() {
    let said = Guest::new(Kernel::UserMode, JAILS).boot(TRY);
    let said: Vec<&str> = said.lines().collect();
    let [begin, refusal, rest @ ..] = &said[..] else { panic!("nothing was said") };
    assert!(begin.contains("INFO") && begin.ends_with(" begins"), "{begin}");
    assert!(refusal.starts_with("fail2xdp: kernel ") && !refusal.contains("verifier"), "{refusal}");
    assert!(refusal.contains("was built without BTF (`CONFIG_DEBUG_INFO_BTF`"), "{refusal}");
    assert!(refusal.contains("boot the distribution's kernel"), "{refusal}");
    assert!(refusal.contains("`--mode none` detects and reports without it"), "{refusal}");
    assert_eq!(rest, ["exit 1", "pinned: ", "attached: 0", "1"]);
}

/// No kernel before 5.10 is to be had as a package, but every kernel can say that it is 2.6.
#[test]
fn a_kernel_that_is_too_old_is_told_what_it_lacks() {
    let net = Net::new("oldkernel");
    let site = Site::new(&net);
    let daemon = site.command(&["run", "--interface", "s0"]);
    let mut old = Command::new(tool("setarch"));
    old.arg("--uname-2.6").arg(daemon.get_program()).args(daemon.get_args());
    let output = old.output().expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("fail2xdp: kernel 2.6.") && said.contains("is too old"), "{said}");
    assert!(said.contains("links that hold an XDP program (Linux 5.9)"), "{said}");
    assert!(said.contains("boot Linux 5.10 or later to enforce; `--mode none`"), "{said}");
    assert_eq!((output.status.code(), site.pins().exists()), (Some(1), false), "{said}");
}
