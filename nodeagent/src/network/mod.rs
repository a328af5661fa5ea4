//! Pod networking: bridge, addresses, routes.
