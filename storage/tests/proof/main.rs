mod codec;
mod edits;
mod golden;
mod master;
mod membership;
mod mirror;
mod outbox;
mod support;
