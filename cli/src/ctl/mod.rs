//! kubectl-style verbs (`trictl`).
