//! Asking before something that many devices will see, or that cannot be taken back.

use std::io::{self, IsTerminal};

use crate::exit::Failure;
use crate::secret::{Echo, ask};

/// Whether a person says yes. Without a terminal nobody can: `--yes` has to be given.
///
/// # Errors
/// `Failure::Usage` without a terminal, or an unusable one.
pub(crate) async fn yes(question: &str) -> Result<bool, Failure> {
    let answer = typed(&format!("{question} [y/N] ")).await?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Asks for a text to be typed.
///
/// # Errors
/// As [`yes`].
pub(crate) async fn typed(prompt: &str) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage("without a terminal, add --yes; nothing was done".to_owned()));
    }
    Ok(ask(prompt, Echo::On).await?.reveal().to_owned())
}
