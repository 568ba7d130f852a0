//! addressbook
