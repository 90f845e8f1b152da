//! The bank: eight small programs that know nothing of a mesh, for showing who may talk to whom.
//!
//! A customer asks `payment`; it asks `authentication` who that is, `fraud-detection` whether to trust it (which alone reads
//! `risk`), and has `transaction` move the money between the accounts that `account` keeps. `audit` keeps a record,
//! `notification` tells the customer. All of it is JSON over HTTP/1.1, in plaintext.
#![forbid(unsafe_code)]

mod http;
mod service;
mod services;

pub use http::{CallError, get, post};
pub use service::{CUSTOMER, NAMESPACE, PORT, Service};
pub use services::serve;
