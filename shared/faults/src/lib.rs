//! Deliberate faults, so that tests can prove that they would notice real ones.
//!
//! - [`points`]: every durable step of the rooms and of what they stand on has a name. The environment lets a process die
//!   by `kill -9` at one of them, or stop there for as long as it takes others to take its work, and go on as a zombie.
//! - [`mutations`]: the protocol's rules, each of which can be broken. The tests must catch every one.
//!
//! Both exist in debug builds only (`debug_assertions`), which is what tests run. In a release build a crash point is
//! nothing at all, and no rule can be broken.

pub mod mutations;
pub mod points;

pub use mutations::{Mutation, is_broken};
pub use points::Point;

/// Marks a durable step: `crash_point!(DispatcherClaimed)` stands right behind the deed that its name tells.
#[macro_export]
macro_rules! crash_point {
    ($point:ident) => {
        #[cfg(debug_assertions)]
        $crate::points::pass($crate::points::Point::$point);
    };
}
