//! Listings too large for an event.
