//! The formula of step times, fitted to what requests took.
