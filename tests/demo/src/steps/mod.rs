//! The steps, in their order. Each shows its evidence as it goes and returns the sentence that sums it up.

mod encrypted;
mod joined;
mod outage;
mod plaintext;
mod strangers;
mod who;

use crate::scene::Step;
use crate::stage::Stage;

/// All of them.
pub const STEPS: &[Step<Stage>] = &[
    Step { title: "Before the mesh: the shop works, and the wire can be read", show: plaintext::show },
    Step { title: "The namespace is labelled: running pods join as they are", show: joined::show },
    Step { title: "The same checkout again: mTLS between the nodes", show: encrypted::show },
    Step { title: "Who talked to whom, under which identity", show: who::show },
    Step { title: "Strangers: plaintext is still served, a forged name is not", show: strangers::show },
    Step { title: "A daemon is killed: nothing leaks, and it comes back", show: outage::show },
];
