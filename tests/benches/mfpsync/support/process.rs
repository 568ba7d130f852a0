//! A child process: started, looked at through `/proc`, ended. Never outlives its handle.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A daemon has this long to stop in order before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const STOP_POLL: Duration = Duration::from_millis(5);
/// Unit of the times in `/proc/<pid>/stat`, per second. **Source**: proc(5); `USER_HZ` is 100 on
/// every Linux architecture we run on.
const TICKS: u64 = 100;

/// A running child, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// # Errors
    /// The program cannot be started.
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("start {name} ({command:?})"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// # Errors
    /// It has ended.
    pub(crate) fn still_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}", self.name),
        }
    }

    /// Asks the process to end and waits for it.
    ///
    /// # Errors
    /// It did not end in time, and was killed.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("process id")?;
        kill_process(pid, Signal::TERM).with_context(|| format!("end {}", self.name))?;
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("{} did not end within {STOP_PATIENCE:?}", self.name);
            }
            std::thread::sleep(STOP_POLL);
        }
        Ok(())
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).with_context(|| format!("{} is gone: read {path}", self.name))
    }

    fn status_mib(&self, field: &str) -> Result<f64> {
        let status = self.proc("status")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .context("field of /proc/<pid>/status")?;
        let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// Resident memory in MiB.
    ///
    /// # Errors
    /// The process is gone.
    pub(crate) fn rss_mib(&self) -> Result<f64> {
        self.status_mib("VmRSS")
    }

    /// The part of it that is no file's: what the process itself made, in MiB.
    ///
    /// # Errors
    /// The process is gone.
    pub(crate) fn anonymous_mib(&self) -> Result<f64> {
        self.status_mib("RssAnon")
    }

    /// The highest resident memory since the process started, in MiB.
    ///
    /// # Errors
    /// The process is gone.
    pub(crate) fn peak_rss_mib(&self) -> Result<f64> {
        self.status_mib("VmHWM")
    }

    /// Processor time used since start, in steps of 10 ms.
    ///
    /// # Errors
    /// The process is gone.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        // The name in parentheses may hold anything; utime and stime are the 14th and 15th field.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest).context("/proc/<pid>/stat")?;
        let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
        let (user, system) = (times.next().context("utime")??, times.next().context("stime")??);
        Ok(Duration::from_millis((user + system) * 1000 / TICKS))
    }

    /// Processor time of each thread alive now, by thread id: counted in nanoseconds, so fine
    /// enough for an idle process.
    ///
    /// # Errors
    /// The process is gone.
    pub(crate) fn thread_times(&self) -> Result<ThreadTimes> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut times = BTreeMap::new();
        for task in fs::read_dir(tasks)? {
            let task = task?;
            // A thread may end between the listing and the look.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let nanos = text.split_whitespace().next().context("schedstat")?.parse()?;
            times.insert(task.file_name(), Duration::from_nanos(nanos));
        }
        Ok(ThreadTimes(times))
    }
}

/// What [`Process::thread_times`] saw.
#[derive(Debug)]
pub(crate) struct ThreadTimes(BTreeMap<OsString, Duration>);

impl ThreadTimes {
    /// What was used since `earlier` by the threads that are still alive.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let before = |thread| earlier.0.get(thread).copied().unwrap_or_default();
        self.0.iter().map(|(thread, time)| time.saturating_sub(before(thread))).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already can be neither killed nor waited for, which is as well.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
