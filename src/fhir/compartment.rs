//! The R4 Patient compartment as element paths (COMP-01), and what this project adds to it.
