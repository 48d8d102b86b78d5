//! What a daemon does with its process: leaving the terminal, taking passed sockets, keeping memory to itself.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};

/// How [`detach`] came back.
#[derive(Debug)]
pub enum Detached {
    /// This is the daemon, in a session of its own; it reports its start through the handle.
    Daemon(StartReport),
    /// This is the process that was called, once the daemon reported: `Err` holds what went wrong.
    Caller(Result<(), String>),
}

/// Tells the waiting caller how the start went; dropping it without a word counts as a failure.
#[derive(Debug)]
pub struct StartReport(File);

impl StartReport {
    const READY: u8 = 6;

    /// The daemon is ready: the caller exits with success.
    pub fn ready(mut self) {
        // A caller that is gone cannot be told; the daemon runs on.
        let _ = self.0.write_all(&[Self::READY]);
    }

    /// The start failed: the caller prints `message` and exits with failure.
    pub fn failed(mut self, message: &str) {
        let _ = self.0.write_all(message.as_bytes());
    }
}

/// Splits off a daemon: a new process in a session of its own with `/` as working directory and no terminal.
/// The caller waits until the daemon has reported.
///
/// # Errors
/// If this process has more than one thread (the others would be lost), or a system call fails.
pub fn detach() -> io::Result<Detached> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("cannot detach once there are threads"));
    }
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: there is one thread, so the child has all there was: no lock is held by a thread that it lacks.
    #[expect(unsafe_code, reason = "fork has no safe form")]
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(read);
            rustix::process::setsid()?;
            rustix::process::chdir("/")?;
            Ok(Detached::Daemon(StartReport(write.into())))
        }
        _ => {
            drop(write);
            Ok(Detached::Caller(await_report(read.into())))
        }
    }
}

fn await_report(mut report: File) -> Result<(), String> {
    let mut bytes = Vec::new();
    let read = report.read_to_end(&mut bytes);
    match (read, bytes.first()) {
        (Ok(_), Some(&StartReport::READY)) => Ok(()),
        (Ok(_), Some(_)) => Err(String::from_utf8_lossy(&bytes).into_owned()),
        (Ok(_), None) => Err("the daemon ended before it was ready".to_owned()),
        (Err(e), _) => Err(format!("cannot read the daemon's report: {e}")),
    }
}

/// Points standard input, output and error at `/dev/null`.
///
/// # Errors
/// If `/dev/null` cannot be opened or put in place.
pub fn silence_stdio() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Sockets that the service manager passed to this process (`sd_listen_fds(3)`), each with its name
/// (`FileDescriptorName=`, else `unknown`). The second call and later ones return nothing.
///
/// # Errors
/// If the environment promises descriptors that are not open.
pub fn passed_sockets() -> io::Result<Vec<(String, OwnedFd)>> {
    const FIRST: RawFd = 3;
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let own = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    if !own || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|n| n.parse::<u16>().ok())
            .unwrap_or(0)
    };
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = Vec::new();
    for fd in (FIRST..).take(number("LISTEN_FDS").into()) {
        // SAFETY: only looks whether the descriptor is open; F_SETFD touches no memory.
        #[expect(unsafe_code, reason = "the descriptor has no owner yet")]
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open, was passed for us to own, and `TAKEN` keeps it from being owned twice.
        #[expect(unsafe_code, reason = "the service manager passes bare numbers")]
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        let name = names.next().filter(|n| !n.is_empty()).unwrap_or("unknown");
        sockets.push((name.to_owned(), owned));
    }
    Ok(sockets)
}

/// Keeps memory out of core files and away from other processes of the same uid (no `ptrace`, no `/proc/<pid>/mem`).
///
/// # Errors
/// If the system refuses.
pub fn forbid_dumps() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none)?;
    Ok(())
}

/// Asks for SIGTERM when the thread that started this process ends.
///
/// # Errors
/// If the system refuses.
pub fn stop_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?)
}

/// Raises the limit of open files to the most that we may have, and returns it (`None`: no limit).
///
/// # Errors
/// If the system refuses.
pub fn raise_file_limit() -> io::Result<Option<u64>> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(Resource::Nofile, raised)?;
    Ok(limit.maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_does_not_detach() {
        let refused = std::thread::spawn(detach).join().unwrap();
        assert!(refused.unwrap_err().to_string().contains("threads"));
    }

    #[test]
    fn the_callers_side_tells_ready_from_failed_and_silence() {
        let report = |bytes: &[u8]| {
            let (read, write) = rustix::pipe::pipe().unwrap();
            File::from(write).write_all(bytes).unwrap();
            await_report(read.into())
        };
        assert_eq!(report(&[StartReport::READY]), Ok(()));
        assert_eq!(report(b"no port"), Err("no port".to_owned()));
        assert!(report(b"").is_err());
    }

    #[test]
    fn the_file_limit_is_the_hard_one() {
        let hard = raise_file_limit().unwrap();
        assert_eq!(rustix::process::getrlimit(Resource::Nofile).current, hard);
    }

    #[test]
    fn sockets_meant_for_another_process_are_not_taken() {
        assert!(passed_sockets().unwrap().is_empty());
    }
}
