//! Asking a person: a passphrase twice without echo, a code with it.
//!
//! Secrets live in `Secret`, which no `Debug` shows; they are never printed, logged or passed as an
//! argument.

use std::fmt;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::exit::Failure;

/// The least a recovery kit or an archive is sealed with.
pub(crate) const MIN_PASSPHRASE_CHARS: usize = 12;
/// More than any passphrase; a larger file is the wrong file.
const MAX_PASSPHRASE_BYTES: u64 = 4096;

/// A text that is never shown.
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one call that needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The passphrase for something new, `what`: from the file's first line, or asked for twice.
///
/// # Errors
/// `Failure::Usage` when it is too short, differs, or nobody can be asked; `Failure::File`.
pub(crate) async fn new_passphrase(what: &str, file: Option<&Path>) -> Result<Secret, Failure> {
    let passphrase = match file {
        Some(path) => from_file(path)?,
        None => ask_twice(what).await?,
    };
    if passphrase.reveal().chars().count() < MIN_PASSPHRASE_CHARS {
        return Err(Failure::Usage(format!(
            "the passphrase needs at least {MIN_PASSPHRASE_CHARS} characters"
        )));
    }
    Ok(passphrase)
}

/// The passphrase of something that is there, `what`: from the file's first line, or asked for once.
///
/// # Errors
/// `Failure::Usage` when nobody can be asked; `Failure::File`.
pub(crate) async fn passphrase_of(what: &str, file: Option<&Path>) -> Result<Secret, Failure> {
    match file {
        Some(path) => from_file(path),
        None if io::stdin().is_terminal() => ask(&format!("Passphrase of {what}: "), Echo::Off).await,
        None => Err(Failure::Usage("without a terminal, name a file with the passphrase".to_owned())),
    }
}

/// The password of an account elsewhere: from the file's first line, or asked for once.
///
/// # Errors
/// `Failure::Usage` when nobody can be asked; `Failure::File`.
pub(crate) async fn password(user: &str, file: Option<&Path>) -> Result<Secret, Failure> {
    match file {
        Some(path) => from_file(path),
        None if io::stdin().is_terminal() => ask(&format!("Password of {user}: "), Echo::Off).await,
        None => {
            Err(Failure::Usage("without a terminal, name a --password-file; nothing was done".to_owned()))
        }
    }
}

pub(crate) fn from_file(path: &Path) -> Result<Secret, Failure> {
    let failure = |source| Failure::File { action: "read", path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failure)?;
    file.take(MAX_PASSPHRASE_BYTES).read_to_string(&mut text).map_err(failure)?;
    Ok(Secret::new(text.lines().next().unwrap_or_default()))
}

async fn ask_twice(what: &str) -> Result<Secret, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage("without a terminal, name a file with the passphrase".to_owned()));
    }
    let first = ask(&format!("Passphrase for {what}: "), Echo::Off).await?;
    let second = ask("The same again: ", Echo::Off).await?;
    if first.reveal() != second.reveal() {
        return Err(Failure::Usage("the two passphrases differ; nothing was done".to_owned()));
    }
    Ok(first)
}

/// Whether what is typed is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    On,
    Off,
}

/// Asks for one line; Ctrl-C leaves the terminal as it was found.
///
/// # Errors
/// `Failure::Interrupted`, or an unusable terminal.
pub(crate) async fn ask(prompt: &str, echo: Echo) -> Result<Secret, Failure> {
    io::stderr().lock().write_all(prompt.as_bytes()).map_err(Failure::Output)?;
    let _restored_on_drop = if echo == Echo::Off { Some(EchoOff::begin()?) } else { None };
    let reading = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map(|_bytes| line)
    });
    let line = tokio::select! {
        read = reading => read.map_err(|gone| Failure::Failed(gone.to_string()))?,
        _ = tokio::signal::ctrl_c() => return Err(Failure::Interrupted),
    };
    let line = line.map_err(|error| Failure::Failed(format!("read the terminal: {error}")))?;
    Ok(Secret::new(line.trim_end_matches(['\r', '\n'])))
}

/// Switches echo off until dropped.
struct EchoOff {
    before: Termios,
}

impl EchoOff {
    fn begin() -> Result<Self, Failure> {
        let failure = |error| Failure::Failed(format!("switch the terminal's echo off: {error}"));
        let before = tcgetattr(io::stdin()).map_err(failure)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        quiet.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet).map_err(failure)?;
        Ok(Self { before })
    }
}

impl Drop for EchoOff {
    fn drop(&mut self) {
        // A terminal that has gone away needs no echo.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_passphrase_file_gives_its_first_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "correct horse battery\nsecond line\n").unwrap();
        let secret = new_passphrase("it", Some(file.path())).await.unwrap();
        assert_eq!(secret.reveal(), "correct horse battery");
        assert_eq!(format!("{secret:?}"), "***");
    }

    #[tokio::test]
    async fn a_short_passphrase_is_refused_without_repeating_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "short-one\n").unwrap();
        let text = new_passphrase("it", Some(file.path())).await.unwrap_err().to_string();
        assert!(text.contains("at least 12") && !text.contains("short-one"), "{text}");
    }
}
