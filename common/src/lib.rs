//! Words shared by kernel and user space: what the maps hold, byte for byte.
#![no_std]
