//! The steps by which a process changes what lies on a disk for good, one by one: each can be held, and the
//! process or whoever waits for it be killed at that very moment.
//!
//! A library preloaded into the process writes each step down before it is made. What was cut off between two
//! steps is cut off at one of them: nothing changes in between.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::device::TestDevice;
use crate::preload;
use crate::wait::{PATIENCE, eventually};

/// What a file server does for whoever writes to it: it syncs nothing.
const OF_A_SERVER: &str = "create write rename remove";

/// The steps of one process, and of those that it starts.
#[derive(Debug)]
pub struct Steps {
    place: PathBuf,
}

impl Steps {
    /// Those of a device that does not run yet, in its data directory; `of` names those that count: `sync`, of what
    /// was written before, `rename` and `remove`. Its [`Power`](crate::power::Power) is installed before, if it has one.
    ///
    /// # Errors
    /// There is no C compiler.
    pub fn of_device(device: &mut TestDevice, of: &str) -> Result<Self> {
        let steps = Self { place: device.home().join("steps") };
        let mut environment = steps.environment(device.home(), &device.data_dir(), of)?;
        for (name, value) in std::mem::take(&mut device.setup.env) {
            match environment.iter_mut().find(|(known, _)| *known == name) {
                // A step is noted, and then made as the others would have it.
                Some((_, libraries)) => *libraries = format!("{libraries}:{value}"),
                None => environment.push((name, value)),
            }
        }
        device.setup.env = environment;
        Ok(steps)
    }

    /// Those of a file server, and the environment by which it writes them down; `home` is its own folder.
    pub(crate) fn of_server(home: &Path, below: &Path) -> Result<(Self, Vec<(String, String)>)> {
        let steps = Self { place: home.join("steps") };
        let environment = steps.environment(home, below, OF_A_SERVER)?;
        Ok((steps, environment))
    }

    fn environment(&self, home: &Path, below: &Path, of: &str) -> Result<Vec<(String, String)>> {
        fs::create_dir_all(&self.place).context("make a place for steps")?;
        let text = |path: &Path| path.display().to_string();
        Ok(vec![
            preload::library("steps", home)?,
            ("MFPSYNC_TEST_STEPS".to_owned(), text(&self.place)),
            ("MFPSYNC_TEST_STEPS_BELOW".to_owned(), text(below)),
            ("MFPSYNC_TEST_STEPS_OF".to_owned(), of.to_owned()),
        ])
    }

    /// Counts from here on, from 0; holds the step of that number, if one is given.
    ///
    /// # Errors
    /// The file system's.
    pub fn count(&self, hold: Option<usize>) -> Result<()> {
        self.go_on()?;
        if let Some(number) = hold {
            fs::write(self.place.join("hold"), number.to_string())?;
        }
        Ok(fs::write(self.place.join("steps"), "")?)
    }

    /// Those since it was counted from 0.
    ///
    /// # Errors
    /// The file system's.
    pub fn seen(&self) -> Result<Vec<String>> {
        let seen = fs::read_to_string(self.place.join("steps")).context("nobody counts steps")?;
        Ok(seen.lines().map(str::to_owned).collect())
    }

    /// Whether the step that is to be held has come.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.place.join("held").exists()
    }

    /// Waits until the step that is to be held has come; which one it is.
    ///
    /// # Errors
    /// It does not come.
    pub async fn held(&self, number: usize) -> Result<String> {
        eventually(PATIENCE, "a step to be held", async || {
            ensure!(self.is_held(), "{:?}", self.seen());
            self.seen()?.into_iter().nth(number).context("it was not written down")
        })
        .await
    }

    /// Lets the step that is held be made, and all that follow; counts no more.
    ///
    /// # Errors
    /// The file system's.
    pub fn go_on(&self) -> Result<()> {
        for name in ["steps", "held", "hold"] {
            match fs::remove_file(self.place.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}
