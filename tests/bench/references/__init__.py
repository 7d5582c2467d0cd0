"""What p2pnb is compared with. Each is as bare as it can be: nothing here resumes, checks or shows anything."""
