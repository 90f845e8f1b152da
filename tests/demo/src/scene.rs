//! What a tour is made of: a place, the steps that are shown in it, and its end.

use anyhow::Result;
use mesh_lab::Daemon;

use crate::screen::Screen;

/// One step in a scene.
pub struct Step<S> {
    /// What it is about.
    pub title: &'static str,
    /// What it does, and the sentence that sums it up. Fails where something does not hold.
    pub show: fn(&mut S, &Screen) -> Result<String>,
}

/// Everything that the steps act on.
pub trait Scene: Sized + 'static {
    /// What is shown, in a line.
    const TITLE: &'static str;
    /// The steps, in their order.
    const STEPS: &'static [Step<Self>];

    /// Makes the place. `keep`: it is to stay after the last step.
    fn build(keep: bool) -> Result<Self>;

    /// The daemons that run now.
    fn daemons(&self) -> Vec<&Daemon>;

    /// Says what else a person wants to see where a step does not hold.
    fn last_words(&self, _screen: &Screen) {}

    /// Says how to look around in what is left up.
    fn say_kept(&self, screen: &Screen) -> Result<()>;

    /// Removes everything. Says what stayed.
    fn take_down(self) -> Result<()>;
}
