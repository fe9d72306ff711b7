//! Native actions as they are written.
