//! Which library speaks SMB, and so which helper program is started.

/// What speaks SMB in a helper program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Library {
    /// Samba's own, which is on the system or not.
    #[default]
    Libsmbclient,
    /// One in Rust, in the program itself.
    Native,
}

impl Library {
    /// All there are, by the names they have in a configuration.
    pub const NAMES: [(&'static str, Self); 2] =
        [("libsmbclient", Self::Libsmbclient), ("native", Self::Native)];

    /// The helper program that speaks by it.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Libsmbclient => "mfpsync-smb",
            Self::Native => "mfpsync-smb-native",
        }
    }
}
