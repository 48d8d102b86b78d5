//! The macros of the process log. Each checks one atomic before it builds anything.

#[doc(hidden)]
#[macro_export]
macro_rules! __process_log {
    ($level:ident, $tag:expr, $($args:tt)+) => {
        if $crate::log::enabled($crate::slog::Level::$level) {
            $crate::slog::log!($crate::log::root(), $crate::slog::Level::$level, $tag, $($args)+);
        }
    };
}

/// Writes an error to the process log: `error!("bind failed"; "server" => name, "reason" => %err)`.
#[macro_export]
macro_rules! error { ($($args:tt)+) => { $crate::__process_log!(Error, "", $($args)+) }; }

/// Writes a warning to the process log.
#[macro_export]
macro_rules! warn { ($($args:tt)+) => { $crate::__process_log!(Warning, "", $($args)+) }; }

/// Writes to the process log whatever the verbosity: what an operator always wants to see, as `ready`.
#[macro_export]
macro_rules! notice {
    ($($args:tt)+) => {
        $crate::slog::log!($crate::log::root(), $crate::slog::Level::Info, $crate::log::NOTICE, $($args)+)
    };
}

/// Writes to the process log at verbosity 1 (`-v`) and more.
#[macro_export]
macro_rules! info { ($($args:tt)+) => { $crate::__process_log!(Info, "", $($args)+) }; }

/// Writes to the process log at verbosity 2 (`-vv`) and more.
#[macro_export]
macro_rules! debug { ($($args:tt)+) => { $crate::__process_log!(Debug, "", $($args)+) }; }

/// Writes to the process log at verbosity 3 (`-vvv`) and more.
#[macro_export]
macro_rules! trace { ($($args:tt)+) => { $crate::__process_log!(Trace, "", $($args)+) }; }
