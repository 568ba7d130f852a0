//! What the helper may do before it looks at foreign bytes: write below its scratch directory, use so much
//! memory and time, and nothing else.
//!
//! System calls that lead out of the process are forbidden one by one, rather than all but those that are
//! needed: which those are differs between C libraries and processors, and a restore must not die of it.
//! Files are kept away by Landlock where the kernel has it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, set_parent_process_death_signal,
    setrlimit,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::error::RestoreError;

/// Address space: the most that scrypt is allowed (256 MiB), and a row of the most bytes, several times.
const MEMORY_BYTES: u64 = 768 << 20;
/// Processor time whatever the size, in seconds.
const CPU_SECONDS: u64 = 120;
/// Bytes of the database for which there is one second more: a tenth of what slow devices take in.
const BYTES_A_SECOND: u64 = 512 << 10;
/// What a file may be longer than twice the database.
const FILE_ROOM_BYTES: u64 = 16 << 20;
/// Descriptors.
const FILES: u64 = 32;
/// The newest rules of Landlock that are asked for; older kernels keep those they know.
const RULES: ABI = ABI::V5;

/// Gives up all rights but those. `bytes` is how long the database will be.
pub(super) fn confine(scratch: &Path, bytes: u64) -> Result<(), RestoreError> {
    // It ends with whoever asked, and leaves no memory behind.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(refused)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused)?;
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::As, MEMORY_BYTES),
        (Resource::Cpu, CPU_SECONDS + bytes / BYTES_A_SECOND),
        (Resource::Fsize, bytes.saturating_mul(2).saturating_add(FILE_ROOM_BYTES)),
        (Resource::Nofile, FILES),
    ] {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(refused)?;
    }
    keep_files_away(scratch).map_err(refused)?;
    let filter = filter().map_err(refused)?;
    seccompiler::apply_filter(&filter).map_err(refused)
}

fn keep_files_away(scratch: &Path) -> Result<(), RulesetError> {
    let all = AccessFs::from_all(RULES);
    let created = Ruleset::default().handle_access(all)?.create()?;
    // A directory that is not there may be refused: what is written there fails then, by name.
    let created = match PathFd::new(scratch) {
        Ok(directory) => created.add_rule(PathBeneath::new(directory, all))?,
        Err(_) => created,
    };
    created.restrict_self().map(drop)
}

/// Whoever calls one of these is killed.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules: BTreeMap<i64, Vec<_>> = forbidden().into_iter().map(|call| (call, Vec::new())).collect();
    let architecture: TargetArch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::KillProcess, architecture)?;
    filter.try_into()
}

/// The network, other programs and processes, the kernel's own doors.
fn forbidden() -> Vec<libc::c_long> {
    let everywhere = [
        libc::SYS_socket,
        libc::SYS_socketpair,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_accept,
        libc::SYS_accept4,
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_sendmmsg,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_kill,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_send_signal,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_chroot,
        libc::SYS_pivot_root,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_open_by_handle_at,
        libc::SYS_io_uring_setup,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_kexec_load,
    ];
    #[cfg(target_arch = "x86_64")]
    let more = [libc::SYS_fork, libc::SYS_vfork];
    #[cfg(not(target_arch = "x86_64"))]
    let more = [];
    everywhere.into_iter().chain(more).collect()
}

fn refused(error: impl Display) -> RestoreError {
    RestoreError::Unconfined(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::path::PathBuf;
    use std::process::{Command, ExitStatus};

    use landlock::{CompatLevel, Compatible};

    use super::*;

    /// What a confined process is to try, and where it may write.
    const TRY: &str = "MFPSYNC_TRY";
    const SCRATCH: &str = "MFPSYNC_TRY_IN";

    /// Not a test by itself: the process that the others start.
    #[test]
    fn try_it() {
        let (Ok(what), Some(scratch)) = (std::env::var(TRY), std::env::var_os(SCRATCH)) else { return };
        let scratch = PathBuf::from(scratch);
        confine(&scratch, 1 << 20).unwrap();
        match what.as_str() {
            "write" => std::fs::write(scratch.join("a"), b"own").unwrap(),
            "read" => drop(std::fs::read("/etc/passwd").unwrap_err()),
            "socket" => drop(std::net::TcpStream::connect("127.0.0.1:1")),
            "datagram" => drop(std::net::UdpSocket::bind("127.0.0.1:0")),
            "program" => drop(Command::new("/bin/true").status()),
            "thread" => drop(std::thread::Builder::new().spawn(|| {})),
            "long file" => drop(std::fs::write(scratch.join("a"), vec![1; 19 << 20])),
            "memory" => drop(std::hint::black_box(vec![1u8; 1 << 30])),
            other => panic!("{other}"),
        }
        std::process::exit(7);
    }

    fn tried(what: &str) -> ExitStatus {
        let scratch = tempfile::tempdir().unwrap();
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "restore::confine::tests::try_it"])
            .env(TRY, what)
            .env(SCRATCH, scratch.path())
            .output()
            .unwrap()
            .status
    }

    #[test]
    fn whoever_tries_the_network_or_another_program_is_killed() {
        for what in ["socket", "datagram", "program", "thread"] {
            assert_eq!(tried(what).signal(), Some(libc::SIGSYS), "{what}");
        }
    }

    #[test]
    fn more_than_its_share_is_refused() {
        assert_eq!(tried("long file").signal(), Some(libc::SIGXFSZ));
        assert_eq!(tried("memory").signal(), Some(libc::SIGABRT));
    }

    #[test]
    fn it_writes_where_it_may() {
        assert_eq!(tried("write").code(), Some(7));
    }

    #[test]
    fn it_reads_nothing_else_where_the_kernel_has_landlock() {
        let required = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let rules = required.handle_access(AccessFs::from_all(ABI::V1)).and_then(|rules| rules.create());
        if rules.is_ok() {
            assert_eq!(tried("read").code(), Some(7));
        }
    }
}
