//! Answers PostgreSQL clients.
