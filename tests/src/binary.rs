//! Where the programs under test are: named by the environment, or beside the test executable.
//!
//! Cargo builds no other package's programs for a test; `make test` builds them first.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use mfpsync_backup::smb::Library;

/// The daemon.
///
/// # Errors
/// It was not built.
pub fn daemon_path() -> Result<PathBuf> {
    find("MFPSYNCD", "mfpsyncd")
}

/// The operator's command.
///
/// # Errors
/// It was not built.
pub fn command_path() -> Result<PathBuf> {
    find("MFPSYNC", "mfpsync")
}

/// The helper program that reaches SMB shares.
///
/// # Errors
/// It was not built.
pub fn smb_helper_path() -> Result<PathBuf> {
    find("MFPSYNC_SMB", "mfpsync-smb")
}

/// The library that this program speaks SMB by.
///
/// # Errors
/// It was not built, or has another name.
pub fn smb_library() -> Result<Library> {
    let program = smb_helper_path()?;
    let named = Library::NAMES
        .into_iter()
        .find(|(_, library)| program.file_name() == Some(library.program().as_ref()));
    Ok(named.context("no helper program of SMB has that name")?.1)
}

fn find(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(named) = env::var_os(variable) {
        return absolute(PathBuf::from(named), &format!("named by {variable}"));
    }
    let own = env::current_exe().context("find the test executable")?;
    // target/debug/deps/e2e-0123, or one level higher for an example or a bench.
    let beside = own.ancestors().skip(1).take(2).map(|directory| directory.join(name));
    for candidate in beside {
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!(
        "{name} is not built: run `cargo build -p mfpsync-daemon -p mfpsync-cli -p mfpsync-backup` first \
         (`make test` does), or name it in {variable}"
    )
}

fn absolute(path: PathBuf, how: &str) -> Result<PathBuf> {
    let path = std::path::absolute(&path).with_context(|| format!("find {}", path.display()))?;
    if !Path::new(&path).is_file() {
        bail!("{} ({how}) is no file", path.display());
    }
    Ok(path)
}
