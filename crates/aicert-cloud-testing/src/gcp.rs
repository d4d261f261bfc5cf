//! A stand-in for the API of Google Compute Engine.
