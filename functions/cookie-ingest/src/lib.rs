//! Takes in matches: an ECID seen beside a Munchkin token. It holds no secret and does not know the audiences.

mod request;
mod store;

pub use request::{Answer, post_matches};
pub use store::{Match, store};
