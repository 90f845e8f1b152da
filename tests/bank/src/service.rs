//! The services as data: what they are called, where they run, and who calls whom.

use std::fmt;

use clap::ValueEnum;

/// The namespace of the whole bank.
pub const NAMESPACE: &str = "bank";
/// The port of every service.
pub const PORT: u16 = 8080;
/// The pod, and the service account, of the customer.
pub const CUSTOMER: &str = "customer";

/// A service. Its pod, its Service, its service account and its label `app` bear its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Service {
    /// Knows who somebody is, by a token.
    Authentication,
    /// Keeps the balances.
    Account,
    /// Takes the customer's order and has it done.
    Payment,
    /// Moves money from one account to another.
    Transaction,
    /// Says whether a payment looks honest.
    FraudDetection,
    /// Knows how far somebody is to be trusted.
    Risk,
    /// Tells customers.
    Notification,
    /// Keeps a record of what was done.
    Audit,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 8] = [
        Self::Authentication,
        Self::Account,
        Self::Payment,
        Self::Transaction,
        Self::FraudDetection,
        Self::Risk,
        Self::Notification,
        Self::Audit,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Account => "account",
            Self::Payment => "payment",
            Self::Transaction => "transaction",
            Self::FraudDetection => "fraud-detection",
            Self::Risk => "risk",
            Self::Notification => "notification",
            Self::Audit => "audit",
        }
    }

    /// Who calls it, by service account: exactly those whom its policy lets in.
    #[must_use]
    pub const fn callers(self) -> &'static [&'static str] {
        match self {
            Self::Payment => &[CUSTOMER],
            Self::Authentication | Self::FraudDetection | Self::Transaction | Self::Notification => &["payment"],
            Self::Account => &["transaction"],
            Self::Risk => &["fraud-detection"],
            Self::Audit => &["payment", "transaction"],
        }
    }

    /// The node it prefers among two: 0 or 1. Some calls so cross nodes, some do not.
    #[must_use]
    pub fn node(self) -> usize {
        usize::from(matches!(self, Self::Transaction | Self::FraudDetection | Self::Account | Self::Notification))
    }

    /// Where others reach it: `risk.bank:8080`.
    #[must_use]
    pub fn address(self) -> String {
        format!("{self}.{NAMESPACE}:{PORT}")
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
