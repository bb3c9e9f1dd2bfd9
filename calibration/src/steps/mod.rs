//! The formula of step times, fitted to measured steps.
