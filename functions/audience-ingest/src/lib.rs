//! Receives the streams of Audience Manager and of Experience Platform, verifies them, and makes them durable.
