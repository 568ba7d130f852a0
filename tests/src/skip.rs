//! Proofs that cannot be made on this machine.

/// Ends a test for want of a privilege or a tool: says so and passes, unless `MFPSYNC_NO_SKIP=1` asks
/// for every proof.
///
/// # Panics
/// It does ask.
#[expect(clippy::print_stderr, reason = "a proof that was not made must be seen")]
pub fn skip(why: &str) {
    let asked = std::env::var_os("MFPSYNC_NO_SKIP").is_some_and(|set| set == "1");
    assert!(!asked, "not proven: {why}");
    eprintln!("SKIPPED: {why}");
}
