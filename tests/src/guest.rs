//! A virtual machine: the one place where a test may set the clock.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::run::{binary, output, repository, require, run, target, tool};

/// Which kernel a machine has, and what runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Debian's cloud kernel, emulated by qemu.
    Cloud,
    /// Debian's User Mode Linux, a process of this machine. It has BPF, but neither BTF nor a JIT.
    UserMode,
}

impl Kernel {
    /// Where setup unpacks its package.
    fn unpacked(self) -> PathBuf {
        let (variable, name) = match self {
            Kernel::Cloud => ("FAIL2XDP_GUEST_KERNEL", "guest-kernel"),
            Kernel::UserMode => ("FAIL2XDP_USER_MODE_LINUX", "user-mode-linux"),
        };
        std::env::var_os(variable).map_or_else(|| target().join(name), PathBuf::from)
    }

    /// The beginning of its file's name.
    fn file(self) -> &'static str {
        match self {
            Kernel::Cloud => "vmlinuz",
            Kernel::UserMode => "linux.uml",
        }
    }
}

/// A Linux machine of busybox, `ip` and the daemon.
///
/// It has no disk and no network but what its script makes. It needs no hardware support and
/// boots in about three seconds. Its shell prefers its own `ip`; the whole one is `/bin/ip`.
#[derive(Debug)]
pub struct Guest {
    directory: TempDir,
    kind: Kernel,
    kernel: PathBuf,
}

impl Guest {
    /// Puts the machine together; its configuration is the shipped one with this `jail.local`.
    #[track_caller]
    pub fn new(kind: Kernel, jails: &str) -> Guest {
        require(&["busybox", "cpio", "gzip", "ip", "ldd", "strip", "sh"]);
        let prefix = format!("f2x-{}-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir();
        let directory = directory.expect("a temporary directory can be made");
        let unpacked = kind.unpacked();
        let guest = Guest { kernel: find(&unpacked, kind.file()), kind, directory };
        for directory in ["bin", "dev", "etc/fail2xdp", "proc", "run", "sys", "tmp", "var/lib"] {
            fs::create_dir_all(guest.path(directory)).expect("the directory is new");
        }
        fs::copy(tool("busybox"), guest.path("bin/busybox")).expect("busybox can be copied");
        guest.install("ip", &tool("ip"));
        guest.install("fail2xdp", &binary());
        run("strip", &[&guest.path("bin/fail2xdp").display().to_string()]);
        guest.install_module(&find(&unpacked, "veth.ko"));
        shell(
            "cp -r \"$0\"/. \"$1\"",
            &[&repository().join("config"), &guest.path("etc/fail2xdp")],
        );
        fs::write(guest.path("etc/fail2xdp/jail.local"), jails)
            .expect("the guest's root can be written");
        guest
    }

    /// Boots, runs a shell script as the first process, and gives what the console said from then on.
    ///
    /// The script finds proc, sysfs, devtmpfs and bpffs mounted and veth loaded. The machine is switched
    /// off after it, at the latest after two minutes.
    #[track_caller]
    pub fn boot(&self, script: &str) -> String {
        let init = format!(
            "#!/bin/busybox sh\n\
             /bin/busybox --install -s /bin; export PATH=/bin\n\
             mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t bpf bpf /sys/fs/bpf\n\
             insmod /veth.ko\n\
             echo GUEST BEGINS\n{script}\necho GUEST ENDS\npoweroff -f\n"
        );
        fs::write(self.path("init"), init).expect("the guest's root can be written");
        let image = self.directory.path().join("image");
        shell(
            "cd \"$0\" && chmod +x init && find . | cpio -o -H newc --quiet | gzip -1 >\"$1\"",
            &[&self.path(""), &image],
        );
        let output = output(&mut self.machine(&image));
        let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let begun = console.split_once("GUEST BEGINS\n").map(|(_, said)| said);
        let whole = begun.and_then(|said| said.split_once("GUEST ENDS").map(|(said, _)| said));
        let errors = String::from_utf8_lossy(&output.stderr);
        whole
            .unwrap_or_else(|| panic!("the guest did not come to its end: {console}{errors}"))
            .to_owned()
    }

    /// What boots the kernel with this image and gives its console on standard output.
    #[track_caller]
    fn machine(&self, image: &Path) -> Command {
        // Whichever of the two ends first, the machine ends too, also when we are killed.
        let mut command = Command::new(tool("setpriv"));
        command.args(["--pdeathsig", "KILL"]).arg(tool("timeout")).args(["--signal=KILL", "120"]);
        match self.kind {
            Kernel::Cloud => {
                command.arg(tool("setpriv")).args(["--pdeathsig", "KILL"]);
                command.arg(tool("qemu-system-x86_64"));
                command.args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "768"]);
                command.args(["-nographic", "-no-reboot", "-nic", "none"]);
                command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(image);
                command.args(["-append", "console=ttyS0 quiet panic=-1"]);
            }
            Kernel::UserMode => {
                // Its processes are processes here too, and end with their own process namespace.
                command.arg(tool("unshare")).args(["--pid", "--fork", "--kill-child=KILL"]);
                command.arg(&self.kernel).args(["mem=512M", "con=null", "con0=null,fd:1", "quiet"]);
                command.arg(format!("initrd={}", image.display()));
                command.arg(format!("uml_dir={}/", self.directory.path().display()));
            }
        }
        command
    }

    /// A path in the guest's root.
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("root").join(name)
    }

    /// Copies a program into `/bin` and the libraries it is linked with to where it looks for them.
    #[track_caller]
    fn install(&self, name: &str, program: &Path) {
        fs::copy(program, self.path("bin").join(name)).expect("programs can be copied");
        let linked = run("ldd", &[&program.display().to_string()]);
        for library in linked.split_whitespace().filter(|word| word.starts_with('/')) {
            let place = self.path(library.trim_start_matches('/'));
            fs::create_dir_all(place.parent().expect("it lies in a directory"))
                .expect("directories can be made");
            fs::copy(library, place).expect("libraries can be copied");
        }
    }

    /// Puts a kernel module, unpacked if need be, at `/veth.ko`.
    #[track_caller]
    fn install_module(&self, module: &Path) {
        let unpack = match module.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => "xz -dc \"$0\" >\"$1\"",
            Some("zst") => "zstd -dqc \"$0\" >\"$1\"",
            _ => "cp \"$0\" \"$1\"",
        };
        shell(unpack, &[module, &self.path("veth.ko")]);
    }
}

/// Runs a line of shell with paths as `$0`, `$1`.
#[track_caller]
fn shell(line: &str, paths: &[&Path]) {
    let mut arguments = vec!["-c".to_owned(), line.to_owned()];
    arguments.extend(paths.iter().map(|path| path.display().to_string()));
    run("sh", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
}

/// A file of the unpacked kernel package, by the beginning of its name.
#[track_caller]
fn find(directory: &Path, begins: &str) -> PathBuf {
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(begins) {
                return entry.path();
            }
            // Links lead out of the package.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(entry.path());
            }
        }
    }
    panic!(
        "no `{begins}` below `{}`: run `cargo xtask setup`, which unpacks a kernel there",
        directory.display()
    );
}
