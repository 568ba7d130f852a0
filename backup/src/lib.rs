//! Archives of the master database on a share: putting them there, proving them, keeping the right ones.
//!
//! Start with [`store`], what a share can do and what goes wrong with it. [`smb`] is what this library and the helper
//! program `mfpsync-smb` say to each other; that program alone links libsmbclient and speaks to a server.

pub mod smb;
pub mod store;
