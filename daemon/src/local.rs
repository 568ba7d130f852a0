//! The local API for firmware: one service over [`crate::own_data::OwnData`].

pub(crate) mod convert;
mod notices;
mod service;

pub use service::LocalService;
